// The flash alone, driven pin by pin.
`timescale 1ns / 1ps

module flash_rules (
    input wire sck,
    input wire cs,
    input wire copi,
    output wire cipo
);
    wire violated;
    flash chip (.sck(sck), .cs(cs), .copi(copi), .cipo(cipo), .violated(violated));
endmodule
