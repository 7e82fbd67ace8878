//! `synmill bench` at the client's end of the lab.

mod faults;
mod loads;
mod output;
mod peers;
mod queues;
mod refusals;
