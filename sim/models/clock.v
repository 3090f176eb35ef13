// Clock, reset and cycle counter of a simulation, for use in a test top.
//
// A clock made here is faster than one that Python makes. `rst` is set for the first RESET_CYCLES
// edges; `cycles` counts rising edges outside reset, so that Python need not. Inputs of the design
// may be driven at time 0; the first rising edge comes half a period later.
//
// With PAUSES the clock stands still now and then, for 1 to 2048 cycles: +pauses=N is how often, in
// 1/65536 for each cycle; +pause_seed=N says when. What is clocked by it stalls all others.
`timescale 1ns / 1ps

module sim_clock #(
    parameter real PERIOD_NS = 10.0,
    parameter integer RESET_CYCLES = 2,
    parameter integer PAUSES = 0
) (
    output reg clk,
    output reg rst,
    output reg [63:0] cycles
);
    integer left, pauses;
    reg [31:0] luck;

    initial begin
        pauses = 0;
        luck = 32'd1;
        if (PAUSES != 0) begin
            if ($value$plusargs("pauses=%d", pauses)) begin end
            if ($value$plusargs("pause_seed=%d", luck)) luck = luck * 32'd2 + 32'd1;
        end
        clk = 1'b0;
        cycles = 64'd0;
        left = RESET_CYCLES;
        forever begin
            #(PERIOD_NS / 2.0) clk = 1'b1;
            #(PERIOD_NS / 2.0) clk = 1'b0;
            if (pauses != 0) begin
                luck = luck ^ (luck << 13);
                luck = luck ^ (luck >> 17);
                luck = luck ^ (luck << 5);
                // Lengths of all magnitudes: a queue that is full holds out for a thousand cycles.
                if (luck[15:0] < pauses)
                    #(PERIOD_NS * (1 + (luck[31:21] >> (luck[20:16] % 12)))) luck = luck + 32'd1;
            end
        end
    end

    // Amaranth's Verilog has `always @*` blocks, which wait for a change before they first run:
    // `rst` rises when all of them wait, not at time 0, or registers may load unknowns in Icarus.
    // Until then it stays unknown: a fall to 0 would be taken for the end of the reset.
    // With Verilator they run before time 0, and what only changes with a clock saves it much: it would
    // evaluate all that depends on `rst` at every step of the simulation.
`ifdef VERILATOR
    initial rst = 1'b1;
`else
    initial #0.001 rst = 1'b1;
`endif

    // Later changes of `rst` come with the edge, like those of a flip-flop.
    always @(posedge clk) begin
        if (left > 0) left <= left - 1;
        rst <= left > 1;
        if (!rst) cycles <= cycles + 64'd1;
    end
endmodule
