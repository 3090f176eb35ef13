// Writes one hexadecimal line per clock cycle with `valid` to the file that +trace=PATH names.
//
// Without the plusarg nothing is written. The file is complete when the simulation has ended.
// Digits that are x or z in the design stay so in the file: the reader refuses them.
`timescale 1ns / 1ps

module trace_writer #(
    parameter integer WIDTH = 64
) (
    input wire clk,
    input wire valid,
    input wire [WIDTH-1:0] data
);
    integer file;
    reg [8*4096-1:0] path;

    initial begin
        file = 0;
        if ($value$plusargs("trace=%s", path)) begin
            file = $fopen(path, "w");
            if (file == 0) begin
                $display("Error: cannot open trace file %0s", path);
                $fatal(1);
            end
        end
    end

    always @(posedge clk)
        if (valid !== 1'b0 && file != 0) $fdisplay(file, "%h", data);
endmodule
