// The ECP5 cells that yosys models itself: logic, flip-flops, carry, distributed RAM and I/O.
// Its own `cells_sim_ecp5.v` would bring a black box DP16KD along; these are the parts of it.
`timescale 1ns / 1ps
`include "common_sim.vh"
`include "ccu2c_sim.vh"
`include "cells_ff.vh"
`include "cells_io.vh"
