//! Tests of a cluster through its public interface: nodes, their files and their HTTP servers.

mod api;
mod commits;
mod failover;
mod processes;
mod refusals;
mod replication;
mod support;
mod torture;
