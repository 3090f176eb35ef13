// The chip alone, driven command by command.
`timescale 1ns / 1ps

module sdram_rules (
    input wire [2:0] command,
    input wire [1:0] bank,
    input wire [12:0] address,
    input wire dq_drive
);
    wire clk, rst, violated;
    wire [63:0] cycles;
    wire [15:0] dq;
    sim_clock #(.PERIOD_NS(7.5)) clock (.clk(clk), .rst(rst), .cycles(cycles));
    sdram #(.POWER_UP_PS(75000)) chip (
        .clk(clk), .cke(1'b1), .command(command), .bank(bank), .address(address), .dqm(2'b00),
        .dq_in(16'h1234), .dq_drive(dq_drive), .dq_out(dq), .violated(violated)
    );
endmodule
