// A master of the register bus that writes words from a file, as fast as the bus takes them.
//
// While `start` is set and it is not `busy`, it begins to write `count` words of the file that
// +feed=PATH names (32 bits each, most significant byte first), from word `first` on: all of them to
// `address`, or with `increment` to addresses that count up. +feed_gaps=N is the share of the cycles,
// in 1/256, in which it does not offer a word; +feed_seed=N says which ones.
`timescale 1ns / 1ps

module bus_feeder #(
    parameter integer ADDRESS_BITS = 23
) (
    input wire clk,
    input wire rst,
    input wire start,
    input wire [ADDRESS_BITS-1:0] address,
    input wire increment,
    input wire [31:0] first,
    input wire [31:0] count,
    output reg busy,
    output reg valid,
    output reg [ADDRESS_BITS-1:0] bus_address,
    output reg [31:0] data,
    input wire ack
);
    integer file, status;
    integer gaps;
    reg [31:0] luck;
    reg [31:0] word, left;
    reg [ADDRESS_BITS-1:0] next;
    reg [8*4096-1:0] path;

    initial begin
        file = 0;
        gaps = 0;
        luck = 32'h1;
        if ($value$plusargs("feed=%s", path)) begin
            file = $fopen(path, "rb");
            if (file == 0) begin
                $display("Error: cannot open the file of bus words %0s", path);
                $fatal(1);
            end
        end
        if ($value$plusargs("feed_gaps=%d", gaps)) begin end
        if ($value$plusargs("feed_seed=%d", luck)) luck = luck * 32'd2 + 32'd1;
        busy = 0;
        valid = 0;
        left = 0;
    end

    always @(posedge clk)
        if (!rst) begin
            luck = luck ^ (luck << 13);
            luck = luck ^ (luck >> 17);
            luck = luck ^ (luck << 5);
            if (!busy) begin
                if (start === 1'b1) begin
                    busy <= 1;
                    left <= count;
                    next <= address;
                    status = $fseek(file, first * 4, 0);
                end
            end else if (!valid || ack) begin
                valid <= 0;
                if (left == 0) busy <= 0;
                else if (luck[15:8] >= gaps) begin
                    status = $fread(word, file);
                    if (status != 4) begin
                        $display("Error: the file of bus words ends too early");
                        $fatal(1);
                    end
                    valid <= 1;
                    data <= word;
                    bus_address <= next;
                    if (increment) next <= next + 1;
                    left <= left - 1;
                end
            end
        end
endmodule
