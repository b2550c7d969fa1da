//! Tests of the command line: its words, and its ways with a host that is a table in memory.

mod arguments;
mod bench;
mod doctor;
mod reading;
mod repository;
mod running;
mod watching;
