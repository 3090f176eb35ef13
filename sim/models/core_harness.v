// Simulation top: the accelerator with clock and reset, its trace written to a file.
//
// The bus and the interrupt are the bench's; +trace=PATH names the trace file, in the format of
// isa/trace.py, +progress=PATH a file for a line with the number of cycles now and then. Macros give
// the widths, POST_LANES, LANES, ADDRESS_BITS, BUS_ADDRESS_BITS and WORD_BITS, the number of ACTIVITIES
// that are counted, a mask of those that are EXCLUSIVE, and CORE_PS, the period of the clock. With MEMORY_PS, the period of the memory's clock, there is an SDRAM, and a flash.
`timescale 1ns / 1ps

module core_harness (
    input wire bus__valid,
    input wire [`BUS_ADDRESS_BITS-1:0] bus__address,
    input wire bus__write,
    input wire [31:0] bus__write_data,
    output wire bus__ack,
    output wire [31:0] bus__read_data,
    output wire interrupt,
    // Words for the bus from a file: see bus_feeder.v.
    input wire feed__start,
    input wire [`BUS_ADDRESS_BITS-1:0] feed__address,
    input wire feed__increment,
    input wire [31:0] feed__first,
    input wire [31:0] feed__count,
    output wire feed__busy
);
    wire clk, rst;
    wire [63:0] cycles;
    sim_clock #(.PERIOD_NS(`CORE_PS / 1000.0)) clock (.clk(clk), .rst(rst), .cycles(cycles));

    wire write_residual, write_bits, write_feature, write_logits, layer_done, frame_done;
    wire [`ADDRESS_BITS-1:0] residual_address, bit_address;
    wire [9*`POST_LANES-1:0] residual;
    wire [7:0] sub_word, layer;
    wire [`LANES-1:0] bits;
    wire [`WORD_BITS-1:0] word;
    wire [16*`POST_LANES-1:0] feature;
    wire [24*`POST_LANES-1:0] logits;
    wire [2:0] kind;
    wire [`ACTIVITIES-1:0] perf;

    wire fed_valid;
    wire [`BUS_ADDRESS_BITS-1:0] fed_address;
    wire [31:0] fed_data;
    bus_feeder #(.ADDRESS_BITS(`BUS_ADDRESS_BITS)) feeder (
        .clk(clk), .rst(rst), .start(feed__start), .address(feed__address),
        .increment(feed__increment), .first(feed__first), .count(feed__count), .busy(feed__busy),
        .valid(fed_valid), .bus_address(fed_address), .data(fed_data),
        .ack(bus__ack & feed__busy)
    );

`ifdef MEMORY_PS
    wire memory_clk, memory_rst;
    wire [63:0] memory_cycles;
    sim_clock #(.PERIOD_NS(`MEMORY_PS / 1000.0), .PAUSES(1)) memory_clock (
        .clk(memory_clk), .rst(memory_rst), .cycles(memory_cycles)
    );
    wire cke, dq_drive, violated;
    wire [2:0] command;
    wire [1:0] bank, dqm;
    wire [12:0] address;
    wire [15:0] dq_out, dq_from_chip;
    reg [15:0] dq_in;
    // The registers in the pads.
    reg [37:0] pads = {1'b0, 3'b111, 34'b0};
    always @(posedge memory_clk) begin
        pads <= {cke, command, bank, address, dqm, dq_out, dq_drive};
        dq_in <= dq_from_chip;
    end
    sdram #(.CLOCK_PS(`MEMORY_PS)) chip (
        .clk(memory_clk), .cke(pads[37]), .command(pads[36:34]), .bank(pads[33:32]),
        .address(pads[31:19]), .dqm(pads[18:17]), .dq_in(pads[16:1]), .dq_drive(pads[0]),
        .dq_out(dq_from_chip), .violated(violated)
    );
    wire sck, cs, copi, from_flash, flash_violated;
    reg [2:0] flash_pads = 0;
    reg cipo = 0;
    always @(posedge clk) begin
        flash_pads <= {sck, cs, copi};
        cipo <= from_flash;
    end
    flash flash_chip (
        .sck(flash_pads[2]), .cs(flash_pads[1]), .copi(flash_pads[0]), .cipo(from_flash),
        .violated(flash_violated)
    );
`endif

    accelerator dut (
        .clk(clk),
        .rst(rst),
        .bus__valid(feed__busy ? fed_valid : bus__valid),
        .bus__address(feed__busy ? fed_address : bus__address),
        .bus__write(feed__busy | bus__write),
        .bus__write_data(feed__busy ? fed_data : bus__write_data),
        .bus__ack(bus__ack),
        .bus__read_data(bus__read_data),
        .interrupt(interrupt),
`ifdef MEMORY_PS
        .memory_clk(memory_clk),
        .memory_rst(memory_rst),
        .pins__cke(cke),
        .pins__command(command),
        .pins__bank(bank),
        .pins__address(address),
        .pins__dqm(dqm),
        .pins__dq_out(dq_out),
        .pins__dq_drive(dq_drive),
        .pins__dq_in(dq_in),
        .flash__sck(sck),
        .flash__cs(cs),
        .flash__copi(copi),
        .flash__cipo(cipo),
`endif
        .trace__write_residual(write_residual),
        .trace__residual_address(residual_address),
        .trace__residual(residual),
        .trace__write_bits(write_bits),
        .trace__bit_address(bit_address),
        .trace__sub_word(sub_word),
        .trace__bits(bits),
        .trace__write_feature(write_feature),
        .trace__write_logits(write_logits),
        .trace__word(word),
        .trace__feature(feature),
        .trace__logits(logits),
        .trace__layer_done(layer_done),
        .trace__layer(layer),
        .trace__kind(kind),
        .trace__frame_done(frame_done),
        .trace__perf(perf)
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

    // How far it is, for whoever waits.
    integer progress_file;
    reg [8*4096-1:0] progress_path;
    initial begin
        progress_file = 0;
        if ($value$plusargs("progress=%s", progress_path))
            progress_file = $fopen(progress_path, "w");
    end
    always @(posedge clk)
        if (progress_file != 0 && cycles[11:0] == 0) begin
            $fdisplay(progress_file, "%0d", cycles);
            $fflush(progress_file);
        end

    // One of the exclusive activities in each cycle of a frame, none between frames; sums of all
    // since the frame's start or the end of its last layer.
    wire [`ACTIVITIES-1:0] exclusive = perf & `EXCLUSIVE;
    reg [31:0] counts [0:`ACTIVITIES-1];
    integer i, j;
    initial for (i = 0; i < `ACTIVITIES; i = i + 1) counts[i] = 0;
    always @(posedge clk)
        if (!rst) begin
            for (i = 0; i < `ACTIVITIES; i = i + 1)
                counts[i] <= layer_done || frame_done || exclusive == 0
                    ? 32'd0 : counts[i] + {31'd0, perf[i]};
            if ((exclusive & (exclusive - 1)) != 0) begin
                $display("Error: cycle %0d is counted more than once: perf %b", cycles, perf);
                $fatal(1);
            end
        end

    // A signal that is x counts as set: the reader refuses the line.
    always @(posedge clk)
        if (!rst && file != 0) begin
            if (write_residual !== 1'b0) $fdisplay(file, "R %0h %0h", residual_address, residual);
            if (write_bits !== 1'b0) $fdisplay(file, "B %0h %0h %0h", bit_address, sub_word, bits);
            if (write_feature !== 1'b0) $fdisplay(file, "F %0h %0h", word, feature);
            if (write_logits !== 1'b0) $fdisplay(file, "L %0h %0h", word, logits);
            if (layer_done !== 1'b0) $fwrite(file, "E %0d %0d %0d", layer, kind, cycles);
            if (frame_done !== 1'b0) $fwrite(file, "D %0d", cycles);
            if (layer_done !== 1'b0 || frame_done !== 1'b0) begin
                for (j = 0; j < `ACTIVITIES; j = j + 1)
                    $fwrite(file, " %0d", counts[j] + {31'd0, perf[j]});
                $fwrite(file, "\n");
            end
        end
endmodule
