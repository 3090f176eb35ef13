// The copier, the registers of the pads, and the flash. +core_ps=N sets the period of the clock.
`timescale 1ns / 1ps

module flash_bench (
    input wire reset,
    input wire memory_ready,
    input wire memory_fault,
    input wire claim,
    input wire host__valid,
    output wire host__ready,
    input wire [21:0] host__address,
    input wire [31:0] host__data,
    output wire write__valid,
    input wire write__ready,
    output wire [21:0] write__address,
    output wire [31:0] write__data,
    output wire copying,
    output wire copied,
    output wire selected
);
    reg clk = 0, rst = 1;
    integer core_ps = 10000;
    reg [3:0] resets = 0;
    initial begin
        if ($value$plusargs("core_ps=%d", core_ps)) begin end
        forever #(core_ps / 2000.0) clk = ~clk;
    end
    always @(posedge clk) begin
        if (!resets[3]) resets <= resets + 1;
        rst <= !resets[3] || reset;
    end

    wire sck, cs, copi, violated, from_chip;
    reg [2:0] pads = 0;
    reg cipo = 0;
    assign selected = pads[1];
    flash_copier copier (
        .clk(clk), .rst(rst), .memory_ready(memory_ready), .memory_fault(memory_fault),
        .claim(claim), .host__valid(host__valid), .host__ready(host__ready),
        .host__address(host__address), .host__data(host__data), .write__valid(write__valid),
        .write__ready(write__ready), .write__address(write__address), .write__data(write__data),
        .copying(copying), .copied(copied), .spi__sck(sck), .spi__cs(cs), .spi__copi(copi),
        .spi__cipo(cipo)
    );
    always @(posedge clk) begin
        pads <= {sck, cs, copi};
        cipo <= from_chip;
    end
    flash chip (
        .sck(pads[2]), .cs(pads[1]), .copi(pads[0]), .cipo(from_chip), .violated(violated)
    );
endmodule
