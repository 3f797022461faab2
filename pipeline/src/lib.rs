//! AION Event Streams: from Kafka into columns, from columns into places people use.

pub mod generate;
