//! End-to-end tests of the program, in real processes.
#![forbid(unsafe_code)]

mod checker;
mod support;

mod bench;
mod cluster;
mod cluster_kills;
mod commands;
mod data;
mod demo;
mod docs;
mod files;
mod groups;
mod hostile;
mod kafka_crowd;
mod kill;
mod kill_kafka;
mod kill_policies;
mod positions;
mod produce;
mod quick_start;
mod repair;
mod silence;
mod space;
mod spread;
mod start;
