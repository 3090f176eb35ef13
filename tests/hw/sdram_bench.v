// The controller, the registers of the pads, and the chip, with clock and reset.
`timescale 1ns / 1ps

module sdram_bench (
    input wire requests__valid,
    output wire requests__ready,
    input wire [27:0] requests__payload,
    input wire write_data__valid,
    output wire write_data__ready,
    input wire [17:0] write_data__payload,
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
    wire [15:0] dq_out, dq_from_chip;
    reg [15:0] dq_in;
    sdram_controller controller (
        .memory_clk(clk), .memory_rst(rst),
        .requests__valid(requests__valid), .requests__ready(requests__ready),
        .requests__payload(requests__payload),
        .write_data__valid(write_data__valid), .write_data__ready(write_data__ready),
        .write_data__payload(write_data__payload),
        .read_data(read_data), .read_valid(read_valid), .ready(ready),
        .pins__cke(cke), .pins__command(command), .pins__bank(bank), .pins__address(address),
        .pins__dqm(dqm), .pins__dq_out(dq_out), .pins__dq_drive(dq_drive), .pins__dq_in(dq_in)
    );
    reg [37:0] pads = {1'b0, 3'b111, 34'b0};
    always @(posedge clk) begin
        pads <= {cke, command, bank, address, dqm, dq_out, dq_drive};
        dq_in <= dq_from_chip;
    end
    sdram #(.POWER_UP_PS(2000000)) chip (
        .clk(clk), .cke(pads[37]), .command(pads[36:34]), .bank(pads[33:32]),
        .address(pads[31:19]), .dqm(pads[18:17]), .dq_in(pads[16:1]), .dq_drive(pads[0]),
        .dq_out(dq_from_chip), .violated(violated)
    );
endmodule
