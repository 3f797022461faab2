//! AION Event Streams: from Kafka into columns, from columns into places people use.

pub mod args;
pub mod audit;
pub mod cli;
pub mod commands;
pub mod config;
pub mod data_folder;
mod event_text;
pub mod exit;
pub mod exports;
pub mod health;
pub mod http;
pub mod job;
mod live_sql;
mod log_ends;
pub mod logging;
pub mod metrics;
pub mod place;
pub mod platform;
pub mod preflight;
pub mod publish;
pub mod registry;
pub mod signals;
mod small_topic;
pub mod storage;
pub mod upkeep;
pub mod webhooks;
pub mod writer_schemas;
