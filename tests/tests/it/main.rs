//! The integration tests, in one binary: LiteFs handles on the nodes of an embedded cluster.

mod asynchronous;
mod backups;
mod batch_upserts;
mod corners;
mod delivery;
mod faults;
mod forwarding;
mod group_commit;
mod handles;
mod handoff;
mod honesty;
mod migrations;
mod partition;
mod procedures;
mod programs;
mod reading;
mod serializability;
mod smoke;
mod speculation;
mod speculation_corners;
mod takeover;
mod telemetry;
mod tracking_table;
mod transactions;
mod urls;
