//! AION Event Streams: from Kafka into columns, from columns into places people use.

pub mod audit;
pub mod bootstrap;
pub mod cli;
pub mod config;
pub mod data_folder;
pub mod dev;
pub mod exit;
pub mod generate;
pub mod health;
pub mod http;
pub mod job;
pub mod kafka_args;
pub mod lake;
pub mod lake_args;
pub mod logging;
pub mod metrics;
pub mod place;
pub mod platform;
pub mod preflight;
pub mod registry;
pub mod run;
pub mod schemas;
pub mod signals;
pub mod sql;
pub mod storage;
pub mod upkeep;
