// The memory system, the registers of the pads, and the chip, with two clocks that are unrelated.
// +core_ps=N sets the period of the core's clock; `memory_cycles` counts the memory's.
`timescale 1ns / 1ps

module memory_bench (
    input wire image_write__valid,
    output wire image_write__ready,
    input wire [21:0] image_write__address,
    input wire [31:0] image_write__data,
    input wire image__rewind,
    input wire [21:0] image__address,
    output wire image__words__valid,
    input wire image__words__ready,
    output wire [31:0] image__words__payload,
    input wire input__valid,
    output wire input__ready,
    input wire [31:0] input__payload,
    output wire frames__valid,
    input wire frames__ready,
    output wire [31:0] frames__payload,
    input wire abort,
    output wire ready,
    output wire fault,
    output wire [20:0] fault_address,
    output wire [63:0] memory_cycles,
    output reg [31:0] writes
);
    wire memory_clk, memory_rst;
    sim_clock #(.PERIOD_NS(7.5)) memory_clock (
        .clk(memory_clk), .rst(memory_rst), .cycles(memory_cycles)
    );

    reg clk = 0, rst = 1;
    integer core_ps = 10007;
    reg [3:0] resets = 0;
    initial begin
        if ($value$plusargs("core_ps=%d", core_ps)) begin end
        forever #(core_ps / 2000.0) clk = ~clk;
    end
    always @(posedge clk) begin
        if (!resets[3]) resets <= resets + 1;
        rst <= !resets[3];
    end

    wire cke, dq_drive, violated;
    wire [2:0] command;
    wire [1:0] bank, dqm;
    wire [12:0] address;
    wire [15:0] dq_out, dq_from_chip;
    reg [15:0] dq_in;
    memory_system system (
        .clk(clk), .rst(rst), .memory_clk(memory_clk), .memory_rst(memory_rst),
        .image_write__valid(image_write__valid), .image_write__ready(image_write__ready),
        .image_write__address(image_write__address), .image_write__data(image_write__data),
        .image__rewind(image__rewind), .image__address(image__address),
        .image__words__valid(image__words__valid), .image__words__ready(image__words__ready),
        .image__words__payload(image__words__payload),
        .input__valid(input__valid), .input__ready(input__ready), .input__payload(input__payload),
        .frames__valid(frames__valid), .frames__ready(frames__ready),
        .frames__payload(frames__payload),
        .abort(abort), .ready(ready), .fault(fault), .fault_address(fault_address),
        .pins__cke(cke), .pins__command(command), .pins__bank(bank), .pins__address(address),
        .pins__dqm(dqm), .pins__dq_out(dq_out), .pins__dq_drive(dq_drive), .pins__dq_in(dq_in)
    );
    reg [37:0] pads = {1'b0, 3'b111, 34'b0};
    always @(posedge memory_clk) begin
        pads <= {cke, command, bank, address, dqm, dq_out, dq_drive};
        dq_in <= dq_from_chip;
    end
    sdram #(.POWER_UP_PS(2000000)) chip (
        .clk(memory_clk), .cke(pads[37]), .command(pads[36:34]), .bank(pads[33:32]),
        .address(pads[31:19]), .dqm(pads[18:17]), .dq_in(pads[16:1]), .dq_drive(pads[0]),
        .dq_out(dq_from_chip), .violated(violated)
    );
    // Bursts written so far.
    initial writes = 0;
    always @(posedge memory_clk) if (command == 3'b100) writes <= writes + 1;
endmodule
