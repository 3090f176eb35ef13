// A single-data-rate SDRAM, 16 bits wide with four banks, that checks how it is used.
//
// From the data sheets of 143 MHz parts (IS42S16160, W9825G6). CAS latency 3, burst length 8,
// sequential. `clk` is the controller's; the chip works at its falling edges. What it drives is
// seen one cycle later than its latency says, as the way there and back takes most of a cycle.
//
// A violation of a timing or of the protocol is reported in one line, sets `violated` and ends the
// simulation. +sdram=PATH preloads words of 16 bits, in hexadecimal, in the order of the address
// {row, bank, column}.
//
// Faults: +stuck_data=N, a data pin that is always read as 0; +stuck_address=N, an address pin that
// is 0 for ACTIVE, READ and WRITE; +stuck_cell=N, the beat at that address in hexadecimal, whose
// bit 5 is always read as 1.
`timescale 1ns / 1ps

module sdram #(
    parameter integer CLOCK_PS = 7500,
    parameter integer ROW_BITS = 13,
    parameter integer COLUMN_BITS = 9,
    // Shorter than a data sheet's 200 us only where a test says so.
    parameter integer POWER_UP_PS = 200000000
) (
    input wire clk,
    input wire cke,
    input wire [2:0] command,
    input wire [1:0] bank,
    input wire [ROW_BITS-1:0] address,
    input wire [1:0] dqm,
    input wire [15:0] dq_in,
    input wire dq_drive,
    output reg [15:0] dq_out,
    output reg violated
);
    localparam integer T_CK = 7000;
    localparam integer T_RCD = 20000, T_RP = 20000, T_RAS = 45000, T_RAS_MAX = 100000000;
    localparam integer T_RC = 67500, T_RRD = 15000, T_RFC = 67500, T_WR = 15000, T_MRD = 15000;
    localparam integer T_REFRESH = 7812500, POSTPONED = 8;
    localparam [2:0] MODE = 0, REFRESH = 1, PRECHARGE = 2, ACTIVE = 3, WRITE = 4, READ = 5, STOP = 6,
        NOP = 7;
    localparam integer NEVER = -1000000;

    reg [15:0] memory [0:(1 << (ROW_BITS + COLUMN_BITS + 2)) - 1];

    // Times are cycles since power-up; compared as picoseconds.
    reg signed [63:0] now, refreshes;
    reg signed [63:0] activated [0:3];  // the last ACTIVE of each bank
    reg signed [63:0] precharged [0:3];
    reg signed [63:0] written [0:3];  // the last beat written to each bank
    reg signed [63:0] any_activated, refreshed, mode_set, ready;
    reg [3:0] opened;
    reg [ROW_BITS-1:0] row [0:3];
    reg initialised;
    integer i;

    // The burst on its way: beats left, and where the next one goes to or comes from.
    reg [3:0] write_left, read_left;
    reg [ROW_BITS+1:0] write_row, read_row;
    reg [COLUMN_BITS-1:0] write_column, read_column;
    reg [1:0] write_bank;
    reg [15:0] data_mask, cell_mask;
    reg [ROW_BITS-1:0] address_mask;
    reg [ROW_BITS+COLUMN_BITS+1:0] stuck_cell;
    integer pin;
    wire [ROW_BITS-1:0] place = address & address_mask;

    // Read beats between the array and the pins: latency 3, and one for the way.
    reg [15:0] beat_1, beat_2, beat_3;
    reg beat_1_valid, beat_2_valid, beat_3_valid;

    task fail(input [8*64-1:0] rule);
        begin
            if (!violated) $display("Error: SDRAM in cycle %0d: %0s", now, rule);
            violated <= 1;
        end
    endtask

    function early(input reg signed [63:0] since, input integer picoseconds);
        early = (now - since) * CLOCK_PS < picoseconds;
    endfunction

    reg [8*4096-1:0] path;
    initial begin
        violated = 0;
        now = 0;
        refreshes = 0;
        for (i = 0; i < 4; i = i + 1) begin
            activated[i] = NEVER;
            precharged[i] = NEVER;
            written[i] = NEVER;
        end
        any_activated = NEVER;
        refreshed = NEVER;
        mode_set = NEVER;
        ready = 0;
        opened = 0;
        initialised = 0;
        write_left = 0;
        read_left = 0;
        {beat_1_valid, beat_2_valid, beat_3_valid} = 0;
        dq_out = 16'hdead;
        if ($value$plusargs("sdram=%s", path)) $readmemh(path, memory);
        data_mask = 16'hffff;
        address_mask = ~0;
        cell_mask = 0;
        stuck_cell = 0;
        if ($value$plusargs("stuck_data=%d", pin)) data_mask[pin] = 0;
        if ($value$plusargs("stuck_address=%d", pin)) address_mask[pin] = 0;
        if ($value$plusargs("stuck_cell=%h", stuck_cell)) cell_mask[5] = 1;
        if (CLOCK_PS < T_CK) fail("tCK: the clock is too fast");
    end

    // The column wraps within its eight beats.
    function [COLUMN_BITS-1:0] following(input [COLUMN_BITS-1:0] column);
        following = {column[COLUMN_BITS-1:3], column[2:0] + 3'd1};
    endfunction

    function [15:0] cell_at(input [ROW_BITS+COLUMN_BITS+1:0] at);
        cell_at = (memory[at] | (at == stuck_cell ? cell_mask : 16'h0)) & data_mask;
    endfunction

    task write_beat(input [ROW_BITS+1:0] at, input [COLUMN_BITS-1:0] column);
        begin
            if (!dq_drive) fail("a beat of a write is not driven");
            if (!dqm[0]) memory[{at, column}][7:0] <= dq_in[7:0];
            if (!dqm[1]) memory[{at, column}][15:8] <= dq_in[15:8];
        end
    endtask

    always @(negedge clk) if (!violated) begin
        now <= now + 1;

        // --- the array: beats of bursts that have begun ------------------------------------------
        beat_1_valid <= 0;
        if (read_left != 0 && command != READ && command != WRITE) begin
            beat_1 <= cell_at({read_row, read_column});
            beat_1_valid <= 1;
            read_column <= following(read_column);
            read_left <= read_left - 1;
        end
        if (write_left != 0 && command != READ && command != WRITE) begin
            write_beat(write_row, write_column);
            write_column <= following(write_column);
            write_left <= write_left - 1;
            written[write_bank] <= now;
        end
        {beat_2, beat_2_valid} <= {beat_1, beat_1_valid};
        {beat_3, beat_3_valid} <= {beat_2, beat_2_valid};
        dq_out <= beat_3_valid ? beat_3 : 16'hdead;
        if (dq_drive && (beat_2_valid || beat_3_valid)) fail("both sides drive the data pins");

        // --- commands ----------------------------------------------------------------------------
        if (command != NOP) begin
            if (!cke) fail("a command while the clock is disabled");
            if (now * CLOCK_PS < POWER_UP_PS) fail("a command before the time to power up is over");
            if (early(refreshed, T_RFC)) fail("tRFC: a command too soon after REFRESH");
            if (early(mode_set, T_MRD)) fail("tMRD: a command too soon after MODE");
        end
        case (command)
            MODE: begin
                if (opened != 0) fail("MODE while a bank is open");
                if (!initialised && refreshes < 2) fail("MODE before two refreshes");
                for (i = 0; i < 4; i = i + 1)
                    if (early(precharged[i], T_RP)) fail("tRP: MODE too soon after PRECHARGE");
                if (address[6:0] != 7'h33) fail("MODE must be CAS latency 3 and burst length 8");
                mode_set <= now;
                initialised <= 1;
                if (!initialised) begin
                    ready <= now;
                    refreshes <= 0;
                end
            end
            REFRESH: begin
                if (opened != 0) fail("REFRESH while a bank is open");
                for (i = 0; i < 4; i = i + 1)
                    if (early(precharged[i], T_RP)) fail("tRP: REFRESH too soon after PRECHARGE");
                refreshed <= now;
                refreshes <= refreshes + 1;
            end
            PRECHARGE:
                for (i = 0; i < 4; i = i + 1)
                    if (address[10] || bank == i) begin
                        if (opened[i]) begin
                            if (early(activated[i], T_RAS)) fail("tRAS: PRECHARGE too soon");
                            if (write_left > 1 && write_bank == i) fail("PRECHARGE cuts off a write");
                            if (early(written[i], T_WR)) fail("tWR: PRECHARGE too soon after a write");
                            if (read_left > 3 && read_row[1:0] == i) fail("PRECHARGE cuts off a read");
                            precharged[i] <= now;
                        end
                        opened[i] <= 0;
                    end
            ACTIVE: begin
                if (!initialised) fail("ACTIVE before the mode is set");
                if (opened[bank]) fail("ACTIVE on an open bank");
                if (early(activated[bank], T_RC)) fail("tRC: ACTIVE too soon after ACTIVE");
                if (early(precharged[bank], T_RP)) fail("tRP: ACTIVE too soon after PRECHARGE");
                if (early(any_activated, T_RRD)) fail("tRRD: ACTIVE too soon after another bank's");
                activated[bank] <= now;
                any_activated <= now;
                opened[bank] <= 1;
                row[bank] <= place;
            end
            READ, WRITE: begin
                if (!opened[bank]) fail("READ or WRITE of a closed bank");
                if (early(activated[bank], T_RCD)) fail("tRCD: READ or WRITE too soon after ACTIVE");
                if (read_left != 0 || write_left != 0) fail("a burst is cut off by another one");
                if (address[10]) fail("automatic precharge is not modelled");
                if (command == READ) begin
                    beat_1 <= cell_at({row[bank], bank, place[COLUMN_BITS-1:0]});
                    beat_1_valid <= 1;
                    read_row <= {row[bank], bank};
                    read_column <= following(place[COLUMN_BITS-1:0]);
                    read_left <= 7;
                end else begin
                    write_beat({row[bank], bank}, place[COLUMN_BITS-1:0]);
                    write_row <= {row[bank], bank};
                    write_column <= following(place[COLUMN_BITS-1:0]);
                    write_bank <= bank;
                    write_left <= 7;
                    written[bank] <= now;
                end
            end
            STOP: fail("BURST STOP is not modelled");
            default: ;
        endcase

        for (i = 0; i < 4; i = i + 1)
            if (opened[i] && !early(activated[i], T_RAS_MAX)) fail("tRAS: a row is open for too long");
        if (initialised && (now - ready) * CLOCK_PS > (refreshes + POSTPONED) * T_REFRESH)
            fail("tREF: refreshes are late");
    end

    always @(posedge clk) if (violated) $fatal(1, "SDRAM was used against its data sheet");
endmodule
