//! The configuration of the tracker: options, environment, URLs of databases.

mod builder;
mod define;
mod detectors;
mod error;
mod given;
mod keywords;
mod resolve;
mod table_name;
mod url;

pub use builder::{Config, ConfigBuilder};
pub use detectors::Detectors;
pub use error::ConfigError;
pub use table_name::{TableName, TableNameError};
pub use url::DatabaseUrl;

#[cfg(test)]
mod tests;
