// The chip alone, driven command by command.
`timescale 1ns / 1ps
`ifndef CLOCK_PS
`define CLOCK_PS 7500
`endif

module sdram_rules (
    input wire cke,
    input wire [2:0] command,
    input wire [1:0] bank,
    input wire [12:0] address,
    input wire dq_drive
);
    wire clk, rst, violated;
    wire [63:0] cycles;
    wire [15:0] dq;
    sim_clock #(.PERIOD_NS(`CLOCK_PS / 1000.0)) clock (.clk(clk), .rst(rst), .cycles(cycles));
    sdram #(.CLOCK_PS(`CLOCK_PS), .POWER_UP_PS(75000)) chip (
        .clk(clk), .cke(cke), .command(command), .bank(bank), .address(address), .dqm(2'b00),
        .dq_in(16'h1234), .dq_drive(dq_drive), .dq_out(dq), .violated(violated)
    );
endmodule
