// The controller and the chip, with clock and reset.
`timescale 1ns / 1ps

module sdram_bench (
    input wire requests__valid,
    output wire requests__ready,
    input wire [21:0] requests__payload,
    output wire beats__ready,
    input wire [17:0] beats__payload,
    output wire [15:0] read_data,
    output wire read_valid,
    output wire ready
);
    wire clk, rst;
    wire [63:0] cycles;
    sim_clock #(.PERIOD_NS(7.5)) clock (.clk(clk), .rst(rst), .cycles(cycles));
    wire cke, dq_drive, violated;
    wire [2:0] command;
    wire [1:0] bank, dqm;
    wire [12:0] address;
    wire [15:0] dq_to_chip, dq_from_chip;
    sdram_controller controller (
        .clk(clk), .rst(rst),
        .requests__valid(requests__valid), .requests__ready(requests__ready),
        .requests__payload(requests__payload),
        .beats__valid(1'b1), .beats__ready(beats__ready), .beats__payload(beats__payload),
        .read_data(read_data), .read_valid(read_valid), .ready(ready),
        .pins__cke(cke), .pins__command(command), .pins__bank(bank), .pins__address(address),
        .pins__dqm(dqm), .pins__dq_out(dq_to_chip), .pins__dq_drive(dq_drive),
        .pins__dq_in(dq_from_chip)
    );
    sdram #(.POWER_UP_PS(2000000)) chip (
        .clk(clk), .cke(cke), .command(command), .bank(bank), .address(address), .dqm(dqm),
        .dq_in(dq_to_chip), .dq_drive(dq_drive), .dq_out(dq_from_chip), .violated(violated)
    );
endmodule
