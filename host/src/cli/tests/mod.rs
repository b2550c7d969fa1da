//! Tests of the command line: its words, and its ways with a host that is a table in memory.

mod arguments;
mod bench;
mod doctor;
mod errors;
mod listing;
mod manual;
mod reading;
mod reference;
mod repository;
mod running;
mod watching;
