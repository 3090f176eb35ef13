// ECP5 block RAM: 18 Kbit, two ports, each 1, 2, 4, 9, 18 or 36 bits wide.
//
// The storage is 512 rows of 36 bits. A port's address picks a row with AD[13:5] and a place in it:
//     36 bits            the row; port A writes DIA and DIB, port B reads DOA (low) and DOB
//     18 bits  AD[4]     half of the row
//      9 bits  AD[3]     half of that
//   4, 2, 1 bits  AD[2:] part of the low eight of those nine bits; the ninth is out of reach
// Byte enables of nine bits: AD[1:0] at 18 bits, AD[3:0] at 36. INITVAL_nn holds 16 words of 18
// bits, each in a field of 20. A read is registered (REGMODE OUTREG adds one stage, enabled by
// OCE); RST clears it whatever CE is, and blocks the write. WRITEMODE says what a writing port
// reads: NORMAL nothing, WRITETHROUGH the row after the write, READBEFOREWRITE the row before it.
//
// Bits that one port reads while the other writes them at the same clock edge are unknown: the data
// sheet promises nothing there. So are they when both write. Pins with a MUX parameter other than
// that of the clock are taken as they come, and GSR, ECC and asynchronous release are not modelled.
`timescale 1ns / 1ps

module DP16KD (
    input DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9,
    input DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0,
    input ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
    input CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0,
    output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9,
    output DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0,
    input DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9,
    input DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0,
    input ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
    input CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
    output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9,
    output DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0
);
    parameter DATA_WIDTH_A = 18;
    parameter DATA_WIDTH_B = 18;
    parameter REGMODE_A = "NOREG";
    parameter REGMODE_B = "NOREG";
    parameter RESETMODE = "SYNC";
    parameter ASYNC_RESET_RELEASE = "SYNC";
    parameter CSDECODE_A = "0b000";
    parameter CSDECODE_B = "0b000";
    parameter WRITEMODE_A = "NORMAL";
    parameter WRITEMODE_B = "NORMAL";
    parameter CLKAMUX = "CLKA";
    parameter CLKBMUX = "CLKB";
    parameter WID = 0;
    parameter GSR = "ENABLED";
    parameter INIT_DATA = "STATIC";
    parameter [319:0] INITVAL_00 = 320'h0;
    parameter [319:0] INITVAL_01 = 320'h0;
    parameter [319:0] INITVAL_02 = 320'h0;
    parameter [319:0] INITVAL_03 = 320'h0;
    parameter [319:0] INITVAL_04 = 320'h0;
    parameter [319:0] INITVAL_05 = 320'h0;
    parameter [319:0] INITVAL_06 = 320'h0;
    parameter [319:0] INITVAL_07 = 320'h0;
    parameter [319:0] INITVAL_08 = 320'h0;
    parameter [319:0] INITVAL_09 = 320'h0;
    parameter [319:0] INITVAL_0A = 320'h0;
    parameter [319:0] INITVAL_0B = 320'h0;
    parameter [319:0] INITVAL_0C = 320'h0;
    parameter [319:0] INITVAL_0D = 320'h0;
    parameter [319:0] INITVAL_0E = 320'h0;
    parameter [319:0] INITVAL_0F = 320'h0;
    parameter [319:0] INITVAL_10 = 320'h0;
    parameter [319:0] INITVAL_11 = 320'h0;
    parameter [319:0] INITVAL_12 = 320'h0;
    parameter [319:0] INITVAL_13 = 320'h0;
    parameter [319:0] INITVAL_14 = 320'h0;
    parameter [319:0] INITVAL_15 = 320'h0;
    parameter [319:0] INITVAL_16 = 320'h0;
    parameter [319:0] INITVAL_17 = 320'h0;
    parameter [319:0] INITVAL_18 = 320'h0;
    parameter [319:0] INITVAL_19 = 320'h0;
    parameter [319:0] INITVAL_1A = 320'h0;
    parameter [319:0] INITVAL_1B = 320'h0;
    parameter [319:0] INITVAL_1C = 320'h0;
    parameter [319:0] INITVAL_1D = 320'h0;
    parameter [319:0] INITVAL_1E = 320'h0;
    parameter [319:0] INITVAL_1F = 320'h0;
    parameter [319:0] INITVAL_20 = 320'h0;
    parameter [319:0] INITVAL_21 = 320'h0;
    parameter [319:0] INITVAL_22 = 320'h0;
    parameter [319:0] INITVAL_23 = 320'h0;
    parameter [319:0] INITVAL_24 = 320'h0;
    parameter [319:0] INITVAL_25 = 320'h0;
    parameter [319:0] INITVAL_26 = 320'h0;
    parameter [319:0] INITVAL_27 = 320'h0;
    parameter [319:0] INITVAL_28 = 320'h0;
    parameter [319:0] INITVAL_29 = 320'h0;
    parameter [319:0] INITVAL_2A = 320'h0;
    parameter [319:0] INITVAL_2B = 320'h0;
    parameter [319:0] INITVAL_2C = 320'h0;
    parameter [319:0] INITVAL_2D = 320'h0;
    parameter [319:0] INITVAL_2E = 320'h0;
    parameter [319:0] INITVAL_2F = 320'h0;
    parameter [319:0] INITVAL_30 = 320'h0;
    parameter [319:0] INITVAL_31 = 320'h0;
    parameter [319:0] INITVAL_32 = 320'h0;
    parameter [319:0] INITVAL_33 = 320'h0;
    parameter [319:0] INITVAL_34 = 320'h0;
    parameter [319:0] INITVAL_35 = 320'h0;
    parameter [319:0] INITVAL_36 = 320'h0;
    parameter [319:0] INITVAL_37 = 320'h0;
    parameter [319:0] INITVAL_38 = 320'h0;
    parameter [319:0] INITVAL_39 = 320'h0;
    parameter [319:0] INITVAL_3A = 320'h0;
    parameter [319:0] INITVAL_3B = 320'h0;
    parameter [319:0] INITVAL_3C = 320'h0;
    parameter [319:0] INITVAL_3D = 320'h0;
    parameter [319:0] INITVAL_3E = 320'h0;
    parameter [319:0] INITVAL_3F = 320'h0;
    wire [13:0] ada = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7,
                       ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
    wire [13:0] adb = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7,
                       ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};
    wire [17:0] dia = {DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9,
                       DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0};
    wire [17:0] dib = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9,
                       DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0};

    function [2:0] cs_code(input [5*8-1:0] text);  // "0bxyz": one character is "0" or "1"
        cs_code = {text[16], text[8], text[0]};
    endfunction

    function [5:0] base(input integer width, input [13:0] ad);  // lowest bit of the place in a row
        case (width)
            36: base = 0;
            18: base = ad[4] * 18;
            9: base = ad[4] * 18 + ad[3] * 9;
            4: base = ad[4] * 18 + ad[3] * 9 + ad[2] * 4;
            2: base = ad[4] * 18 + ad[3] * 9 + ad[2:1] * 2;
            default: base = ad[4] * 18 + ad[3] * 9 + ad[2:0];
        endcase
    endfunction

    function [35:0] ones(input integer width);  // the low `width` bits
        ones = 36'hFFFFFFFFF >> (36 - width);
    endfunction

    // The bits of a word that are written.
    function [35:0] enabled(input integer width, input [13:0] ad);
        case (width)
            36: enabled = {{9{ad[3]}}, {9{ad[2]}}, {9{ad[1]}}, {9{ad[0]}}};
            18: enabled = {18'b0, {9{ad[1]}}, {9{ad[0]}}};
            default: enabled = ones(width);
        endcase
    endfunction

    wire clka = CLKAMUX == "INV" ? ~CLKA : CLKA;
    wire clkb = CLKBMUX == "INV" ? ~CLKB : CLKB;
    wire usea = CEA && {CSA2, CSA1, CSA0} == cs_code(CSDECODE_A);
    wire useb = CEB && {CSB2, CSB1, CSB0} == cs_code(CSDECODE_B);
    wire writea = usea && WEA && !RSTA;
    wire writeb = useb && WEB && !RSTB;
    wire [5:0] basea = base(DATA_WIDTH_A, ada);
    wire [5:0] baseb = base(DATA_WIDTH_B, adb);

    // What each port writes, and reads, of its row, as masks of its bits.
    wire [35:0] maska = writea ? enabled(DATA_WIDTH_A, ada) << basea : 36'b0;
    wire [35:0] maskb = writeb ? enabled(DATA_WIDTH_B, adb) << baseb : 36'b0;
    wire [35:0] dataa = (DATA_WIDTH_A == 36 ? {dib, dia} : {18'b0, dia}) << basea;
    wire [35:0] datab = {18'b0, dib} << baseb;
    wire same = ada[13:5] == adb[13:5] && clka === clkb;
    wire [35:0] clash = same ? maska & maskb : 36'b0;

    reg [35:0] rows[0:511];
    reg [35:0] reada, readb;  // read registers
    reg [35:0] outa, outb;  // output registers
    integer i;

    initial begin
        reada = 36'b0;
        readb = 36'b0;
        outa = 36'b0;
        outb = 36'b0;
        fill(0, INITVAL_00);
        fill(1, INITVAL_01);
        fill(2, INITVAL_02);
        fill(3, INITVAL_03);
        fill(4, INITVAL_04);
        fill(5, INITVAL_05);
        fill(6, INITVAL_06);
        fill(7, INITVAL_07);
        fill(8, INITVAL_08);
        fill(9, INITVAL_09);
        fill(10, INITVAL_0A);
        fill(11, INITVAL_0B);
        fill(12, INITVAL_0C);
        fill(13, INITVAL_0D);
        fill(14, INITVAL_0E);
        fill(15, INITVAL_0F);
        fill(16, INITVAL_10);
        fill(17, INITVAL_11);
        fill(18, INITVAL_12);
        fill(19, INITVAL_13);
        fill(20, INITVAL_14);
        fill(21, INITVAL_15);
        fill(22, INITVAL_16);
        fill(23, INITVAL_17);
        fill(24, INITVAL_18);
        fill(25, INITVAL_19);
        fill(26, INITVAL_1A);
        fill(27, INITVAL_1B);
        fill(28, INITVAL_1C);
        fill(29, INITVAL_1D);
        fill(30, INITVAL_1E);
        fill(31, INITVAL_1F);
        fill(32, INITVAL_20);
        fill(33, INITVAL_21);
        fill(34, INITVAL_22);
        fill(35, INITVAL_23);
        fill(36, INITVAL_24);
        fill(37, INITVAL_25);
        fill(38, INITVAL_26);
        fill(39, INITVAL_27);
        fill(40, INITVAL_28);
        fill(41, INITVAL_29);
        fill(42, INITVAL_2A);
        fill(43, INITVAL_2B);
        fill(44, INITVAL_2C);
        fill(45, INITVAL_2D);
        fill(46, INITVAL_2E);
        fill(47, INITVAL_2F);
        fill(48, INITVAL_30);
        fill(49, INITVAL_31);
        fill(50, INITVAL_32);
        fill(51, INITVAL_33);
        fill(52, INITVAL_34);
        fill(53, INITVAL_35);
        fill(54, INITVAL_36);
        fill(55, INITVAL_37);
        fill(56, INITVAL_38);
        fill(57, INITVAL_39);
        fill(58, INITVAL_3A);
        fill(59, INITVAL_3B);
        fill(60, INITVAL_3C);
        fill(61, INITVAL_3D);
        fill(62, INITVAL_3E);
        fill(63, INITVAL_3F);
    end

    task fill(input integer slice, input [319:0] words);
        integer k;
        for (k = 0; k < 8; k = k + 1)
            rows[slice * 8 + k] = {words[k * 40 + 20 +: 18], words[k * 40 +: 18]};
    endtask

    // Both processes read `rows` before either writes: all writes are nonblocking.
    always @(posedge clka)
        if (|maska)
            for (i = 0; i < 36; i = i + 1)
                if (maska[i]) rows[ada[13:5]][i] <= clash[i] ? 1'bx : dataa[i];

    integer j;
    always @(posedge clkb)
        if (|maskb)
            for (j = 0; j < 36; j = j + 1)
                if (maskb[j]) rows[adb[13:5]][j] <= clash[j] ? 1'bx : datab[j];

    function [35:0] unknown(input [35:0] row, input [35:0] mask);  // `row` with x where `mask`
        integer k;
        begin
            unknown = row;
            if (|mask) for (k = 0; k < 36; k = k + 1) if (mask[k]) unknown[k] = 1'bx;
        end
    endfunction

    wire [35:0] nowa = unknown(rows[ada[13:5]], same ? maskb : 36'b0);
    wire [35:0] nowb = unknown(rows[adb[13:5]], same ? maska : 36'b0);
    wire [35:0] througha = WRITEMODE_A == "WRITETHROUGH" ? nowa & ~maska | dataa & maska : nowa;
    wire [35:0] throughb = WRITEMODE_B == "WRITETHROUGH" ? nowb & ~maskb | datab & maskb : nowb;
    wire loada = usea && !(WEA && WRITEMODE_A == "NORMAL");
    wire loadb = useb && !(WEB && WRITEMODE_B == "NORMAL");

    wire async = RESETMODE == "ASYNC";
    wire aclra = async && RSTA;
    wire aclrb = async && RSTB;

    always @(posedge clka or posedge aclra)
        if (aclra || RSTA) begin
            reada <= 36'b0;
            outa <= 36'b0;
        end else begin
            if (loada) reada <= (througha >> basea) & ones(DATA_WIDTH_A);
            if (OCEA) outa <= reada;
        end

    always @(posedge clkb or posedge aclrb)
        if (aclrb || RSTB) begin
            readb <= 36'b0;
            outb <= 36'b0;
        end else begin
            if (loadb) readb <= (throughb >> baseb) & ones(DATA_WIDTH_B);
            if (OCEB) outb <= readb;
        end

    wire [35:0] fulla = REGMODE_A == "OUTREG" ? outa : reada;
    wire [35:0] fullb = REGMODE_B == "OUTREG" ? outb : readb;
    // A 36-bit read, which only port B does, takes both output buses.
    wire [17:0] doa = DATA_WIDTH_B == 36 ? fullb[17:0] : fulla[17:0];
    wire [17:0] dob = DATA_WIDTH_B == 36 ? fullb[35:18] : fullb[17:0];
    assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9,
            DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0} = doa;
    assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9,
            DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0} = dob;
endmodule
