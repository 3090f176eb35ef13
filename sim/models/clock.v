// Clock, reset and cycle counter of a simulation, for use in a test top.
//
// A clock made here is faster than one that Python makes. `rst` is set for the first RESET_CYCLES
// edges; `cycles` counts rising edges outside reset, so that Python need not. Inputs of the design
// may be driven at time 0; the first rising edge comes half a period later.
`timescale 1ns / 1ps

module sim_clock #(
    parameter real PERIOD_NS = 10.0,
    parameter integer RESET_CYCLES = 2
) (
    output reg clk,
    output reg rst,
    output reg [63:0] cycles
);
    integer left;

    initial begin
        clk = 1'b0;
        cycles = 64'd0;
        left = RESET_CYCLES;
        forever begin
            #(PERIOD_NS / 2.0) clk = 1'b1;
            #(PERIOD_NS / 2.0) clk = 1'b0;
        end
    end

    // Amaranth's Verilog has `always @*` blocks, which wait for a change before they first run:
    // `rst` rises when all of them wait, not at time 0, or registers may load unknowns in Icarus.
    // Until then it stays unknown: a fall to 0 would be taken for the end of the reset.
    initial #0.001 rst = 1'b1;

    // Later changes of `rst` come with the edge, like those of a flip-flop.
    always @(posedge clk) begin
        if (left > 0) left <= left - 1;
        rst <= left > 1;
        if (!rst) cycles <= cycles + 64'd1;
    end
endmodule
