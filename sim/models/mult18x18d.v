// ECP5 multiplier: 18 x 18 bits, each operand signed or not, 36-bit product.
//
// REG_*_CLK selects the clock of each rank of registers, or NONE for no rank: input A and input B
// (with their sign flags), pipeline (the product), output. REG_*_CE and REG_*_RST select its enable
// and reset, which RESETMODE makes synchronous or not. All start at 0.
//
// Not modelled: input C and the shift chains (SOURCEA, SOURCEB, SRI*, SRO*: those outputs are
// unknown), clock dividers, GSR, MULT_BYPASS, CAS_MATCH_REG.
`timescale 1ns / 1ps

module MULT18X18D (
    input A17, A16, A15, A14, A13, A12, A11, A10, A9, A8,
    input A7, A6, A5, A4, A3, A2, A1, A0,
    input B17, B16, B15, B14, B13, B12, B11, B10, B9, B8,
    input B7, B6, B5, B4, B3, B2, B1, B0,
    input C17, C16, C15, C14, C13, C12, C11, C10, C9, C8,
    input C7, C6, C5, C4, C3, C2, C1, C0,
    input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
    input CLK3, CLK2, CLK1, CLK0, CE3, CE2, CE1, CE0, RST3, RST2, RST1, RST0,
    input SRIA17, SRIA16, SRIA15, SRIA14, SRIA13, SRIA12, SRIA11, SRIA10, SRIA9, SRIA8,
    input SRIA7, SRIA6, SRIA5, SRIA4, SRIA3, SRIA2, SRIA1, SRIA0,
    input SRIB17, SRIB16, SRIB15, SRIB14, SRIB13, SRIB12, SRIB11, SRIB10, SRIB9, SRIB8,
    input SRIB7, SRIB6, SRIB5, SRIB4, SRIB3, SRIB2, SRIB1, SRIB0,
    output SROA17, SROA16, SROA15, SROA14, SROA13, SROA12, SROA11, SROA10, SROA9, SROA8,
    output SROA7, SROA6, SROA5, SROA4, SROA3, SROA2, SROA1, SROA0,
    output SROB17, SROB16, SROB15, SROB14, SROB13, SROB12, SROB11, SROB10, SROB9, SROB8,
    output SROB7, SROB6, SROB5, SROB4, SROB3, SROB2, SROB1, SROB0,
    output ROA17, ROA16, ROA15, ROA14, ROA13, ROA12, ROA11, ROA10, ROA9, ROA8,
    output ROA7, ROA6, ROA5, ROA4, ROA3, ROA2, ROA1, ROA0,
    output ROB17, ROB16, ROB15, ROB14, ROB13, ROB12, ROB11, ROB10, ROB9, ROB8,
    output ROB7, ROB6, ROB5, ROB4, ROB3, ROB2, ROB1, ROB0,
    output ROC17, ROC16, ROC15, ROC14, ROC13, ROC12, ROC11, ROC10, ROC9, ROC8,
    output ROC7, ROC6, ROC5, ROC4, ROC3, ROC2, ROC1, ROC0,
    output P35, P34, P33, P32, P31, P30, P29, P28, P27, P26,
    output P25, P24, P23, P22, P21, P20, P19, P18, P17, P16,
    output P15, P14, P13, P12, P11, P10, P9, P8, P7, P6,
    output P5, P4, P3, P2, P1, P0,
    output SIGNEDP
);
    parameter REG_INPUTA_CLK = "NONE";
    parameter REG_INPUTA_CE = "CE0";
    parameter REG_INPUTA_RST = "RST0";
    parameter REG_INPUTB_CLK = "NONE";
    parameter REG_INPUTB_CE = "CE0";
    parameter REG_INPUTB_RST = "RST0";
    parameter REG_INPUTC_CLK = "NONE";
    parameter REG_INPUTC_CE = "CE0";
    parameter REG_INPUTC_RST = "RST0";
    parameter REG_PIPELINE_CLK = "NONE";
    parameter REG_PIPELINE_CE = "CE0";
    parameter REG_PIPELINE_RST = "RST0";
    parameter REG_OUTPUT_CLK = "NONE";
    parameter REG_OUTPUT_CE = "CE0";
    parameter REG_OUTPUT_RST = "RST0";
    parameter CLK0_DIV = "ENABLED";
    parameter CLK1_DIV = "ENABLED";
    parameter CLK2_DIV = "ENABLED";
    parameter CLK3_DIV = "ENABLED";
    parameter HIGHSPEED_CLK = "NONE";
    parameter GSR = "ENABLED";
    parameter CAS_MATCH_REG = "FALSE";
    parameter SOURCEB_MODE = "B_SHIFT";
    parameter MULT_BYPASS = "DISABLED";
    parameter RESETMODE = "SYNC";

    wire [17:0] a =
        {A17, A16, A15, A14, A13, A12, A11, A10, A9, A8,
         A7, A6, A5, A4, A3, A2, A1, A0};
    wire [17:0] b =
        {B17, B16, B15, B14, B13, B12, B11, B10, B9, B8,
         B7, B6, B5, B4, B3, B2, B1, B0};
    wire [3:0] clk = {CLK3, CLK2, CLK1, CLK0};
    wire [3:0] ce = {CE3, CE2, CE1, CE0};
    wire [3:0] rst = {RST3, RST2, RST1, RST0};

    wire [18:0] a1, b1;
    mult18x18d_rank #(19, REG_INPUTA_CLK, REG_INPUTA_CE, REG_INPUTA_RST, RESETMODE) rank_a (
        .clk(clk), .ce(ce), .rst(rst), .d({SIGNEDA, a}), .q(a1));
    mult18x18d_rank #(19, REG_INPUTB_CLK, REG_INPUTB_CE, REG_INPUTB_RST, RESETMODE) rank_b (
        .clk(clk), .ce(ce), .rst(rst), .d({SIGNEDB, b}), .q(b1));

    // A nineteenth bit makes either kind of operand a signed number.
    wire signed [18:0] as = {a1[18] & a1[17], a1[17:0]};
    wire signed [18:0] bs = {b1[18] & b1[17], b1[17:0]};
    wire signed [37:0] product = as * bs;

    wire [36:0] p1, p2;
    mult18x18d_rank #(37, REG_PIPELINE_CLK, REG_PIPELINE_CE, REG_PIPELINE_RST, RESETMODE) rank_p (
        .clk(clk), .ce(ce), .rst(rst), .d({a1[18] | b1[18], product[35:0]}), .q(p1));
    mult18x18d_rank #(37, REG_OUTPUT_CLK, REG_OUTPUT_CE, REG_OUTPUT_RST, RESETMODE) rank_o (
        .clk(clk), .ce(ce), .rst(rst), .d(p1), .q(p2));

    assign {SIGNEDP,
         P35, P34, P33, P32, P31, P30, P29, P28, P27, P26,
         P25, P24, P23, P22, P21, P20, P19, P18, P17, P16,
         P15, P14, P13, P12, P11, P10, P9, P8, P7, P6,
         P5, P4, P3, P2, P1, P0} = p2;
    assign {ROA17, ROA16, ROA15, ROA14, ROA13, ROA12, ROA11, ROA10, ROA9, ROA8,
         ROA7, ROA6, ROA5, ROA4, ROA3, ROA2, ROA1, ROA0} = a1[17:0];
    assign {ROB17, ROB16, ROB15, ROB14, ROB13, ROB12, ROB11, ROB10, ROB9, ROB8,
         ROB7, ROB6, ROB5, ROB4, ROB3, ROB2, ROB1, ROB0} = b1[17:0];
    assign {ROC17, ROC16, ROC15, ROC14, ROC13, ROC12, ROC11, ROC10, ROC9, ROC8,
         ROC7, ROC6, ROC5, ROC4, ROC3, ROC2, ROC1, ROC0} = 18'bx;
    assign {SROA17, SROA16, SROA15, SROA14, SROA13, SROA12, SROA11, SROA10, SROA9, SROA8,
         SROA7, SROA6, SROA5, SROA4, SROA3, SROA2, SROA1, SROA0} = 18'bx;
    assign {SROB17, SROB16, SROB15, SROB14, SROB13, SROB12, SROB11, SROB10, SROB9, SROB8,
         SROB7, SROB6, SROB5, SROB4, SROB3, SROB2, SROB1, SROB0} = 18'bx;
endmodule

// One rank of registers, or a wire.
module mult18x18d_rank #(
    parameter WIDTH = 1,
    parameter CLK = "NONE",
    parameter CE = "CE0",
    parameter RST = "RST0",
    parameter RESETMODE = "SYNC"
) (
    input [3:0] clk,
    input [3:0] ce,
    input [3:0] rst,
    input [WIDTH-1:0] d,
    output [WIDTH-1:0] q
);
    wire ck = CLK == "CLK3" ? clk[3] : CLK == "CLK2" ? clk[2] : CLK == "CLK1" ? clk[1] : clk[0];
    wire en = CE == "CE3" ? ce[3] : CE == "CE2" ? ce[2] : CE == "CE1" ? ce[1] : ce[0];
    wire clear = RST == "RST3" ? rst[3] : RST == "RST2" ? rst[2] : RST == "RST1" ? rst[1] : rst[0];
    wire aclear = RESETMODE == "ASYNC" && clear;
    reg [WIDTH-1:0] state;

    initial state = 0;
    always @(posedge ck or posedge aclear)
        if (aclear || clear) state <= 0;
        else if (en) state <= d;

    assign q = CLK == "NONE" ? d : state;
endmodule
