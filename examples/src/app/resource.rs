//! The rows, and the bodies of requests.

use diesel::prelude::*;
use serde::{Deserialize, Serialize};

use super::schema::resources;

/// A row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Queryable, Selectable, Insertable)]
#[diesel(table_name = resources)]
pub(crate) struct Resource {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) city: String,
    pub(crate) state: String,
    pub(crate) country: String,
    pub(crate) latitude: f64,
    pub(crate) longitude: f64,
    /// The client's own name for a row that it posted.
    pub(crate) client_key: Option<String>,
}

/// The body of POST and PUT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Insertable, AsChangeset)]
#[diesel(table_name = resources, treat_none_as_null = true)]
pub(crate) struct NewResource {
    pub(crate) name: String,
    pub(crate) city: String,
    pub(crate) state: String,
    pub(crate) country: String,
    pub(crate) latitude: f64,
    pub(crate) longitude: f64,
    pub(crate) client_key: Option<String>,
}

impl NewResource {
    /// The row with these values.
    pub(crate) fn with_id(self, id: String) -> Resource {
        let Self { name, city, state, country, latitude, longitude, client_key } = self;
        Resource { id, name, city, state, country, latitude, longitude, client_key }
    }
}

impl From<Resource> for NewResource {
    fn from(row: Resource) -> Self {
        let Resource { id: _, name, city, state, country, latitude, longitude, client_key } = row;
        Self { name, city, state, country, latitude, longitude, client_key }
    }
}

/// The body of PATCH: absent fields are not changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, AsChangeset)]
#[diesel(table_name = resources)]
#[serde(default)]
pub(crate) struct Changes {
    pub(crate) name: Option<String>,
    pub(crate) city: Option<String>,
    pub(crate) state: Option<String>,
    pub(crate) country: Option<String>,
    pub(crate) latitude: Option<f64>,
    pub(crate) longitude: Option<f64>,
}

impl Changes {
    /// Nothing to change: Diesel refuses an UPDATE without assignments.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
