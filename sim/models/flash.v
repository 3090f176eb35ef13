// An SPI flash of 16 MiB for reading in mode 0, which checks how it is used.
//
// From the data sheets of IS25LP128 and W25Q128: READ (03h) and FAST READ (0Bh), up to 50 MHz.
// +flash=PATH names a file of bytes from address 0 on; what is behind it, or everything, is erased.
//
// What the chip drives is seen T_OUTPUT later than it is told to: its own delay, and those of the
// pads. Until then, and while it is not selected, the master sees the opposite of what stood there.
//
// A violation is reported in one line, sets `violated` and ends the simulation.
`timescale 1ns / 1ps

module flash (
    input wire sck,
    input wire cs,
    input wire copi,
    output reg cipo,
    output reg violated
);
    localparam real T_PERIOD = 20, T_SELECT = 5, T_DESELECT = 5, T_DESELECTED = 100;
    localparam real T_SETUP = 2, T_HOLD = 3, T_OUTPUT = 15, T_OUTPUT_HOLD = 1;
    localparam [7:0] READ = 8'h03, FAST_READ = 8'h0b;

    reg [7:0] memory [0:(1 << 24) - 1];
    integer length;  // bytes that are not erased
    integer file;
    reg [8*4096-1:0] path;

    // Of the transfer on its way: bits clocked, what came, and what goes.
    integer count;
    reg [7:0] opcode;
    reg [23:0] address;
    reg [7:0] shift;
    realtime selected, deselected, risen, sent;

    task fail(input [8*64-1:0] rule);
        begin
            if (!violated) $display("Error: flash at %0t: %0s", $realtime, rule);
            violated = 1;
        end
    endtask

    // Less what adding up picoseconds as reals may lose.
    function sooner(input real since, input real time_ns);
        sooner = $realtime - since < time_ns - 0.001;
    endfunction

    initial begin
        violated = 0;
        cipo = 0;
        length = 0;
        count = 0;
        selected = -1000;
        deselected = -1000;
        risen = -1000;
        sent = -1000;
        if ($value$plusargs("flash=%s", path)) begin
            file = $fopen(path, "rb");
            if (file == 0) fail("cannot open the file of +flash");
            else begin
                length = $fread(memory, file);
                $fclose(file);
            end
        end
    end

    function [7:0] byte_at(input [23:0] where);
        byte_at = where < length ? memory[where] : 8'hff;
    endfunction

    function integer data_begins(input [7:0] command);
        data_begins = command == FAST_READ ? 40 : 32;
    endfunction

    always @(posedge cs) begin
        if (sck) fail("selected while the clock is high: mode 0 wants it low");
        if (sooner(deselected, T_DESELECTED)) fail("selected too soon after the last transfer");
        selected = $realtime;
        count = 0;
    end

    always @(negedge cs) begin
        if (sooner(risen, T_DESELECT)) fail("deselected too soon after the clock's rise");
        deselected = $realtime;
    end

    always @(copi) begin
        if (cs && sooner(risen, T_HOLD)) fail("data must be held after the clock's rise");
        sent = $realtime;
    end

    always @(posedge sck) begin
        if (sooner(risen, T_PERIOD)) fail("the clock is too fast");
        risen = $realtime;
        if (cs) begin
            if (sooner(selected, T_SELECT)) fail("clocked too soon after it was selected");
            if (sooner(sent, T_SETUP)) fail("data must be there before the clock's rise");
            if (count < 8) opcode = {opcode[6:0], copi};
            else if (count < 32) address = {address[22:0], copi};
            count = count + 1;
            if (count == 8 && opcode != READ && opcode != FAST_READ) fail("unknown command");
        end
    end

    always @(negedge sck) if (cs && count >= 32 && count >= data_begins(opcode)) begin
        if ((count - data_begins(opcode)) % 8 == 0) begin
            shift = byte_at(address);
            address = address + 1;
        end else shift = {shift[6:0], 1'b0};
        cipo <= #T_OUTPUT_HOLD ~shift[7];
        cipo <= #T_OUTPUT shift[7];
    end

    always @(posedge violated) $fatal(1, "the flash was used against its data sheet");
endmodule
