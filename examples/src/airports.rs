//! The data set in this repository; `data/README.md` describes its source.

use serde::Deserialize;

use crate::Problem;
use crate::app::Resource;

/// Embedded in the program, so that it runs from any directory.
const CSV: &str = include_str!("../data/airports.csv");

/// One line of the file. Its header names the fields.
#[derive(Deserialize)]
struct Line {
    iata: String,
    name: String,
    city: String,
    state: String,
    country: String,
    latitude: f64,
    longitude: f64,
}

impl From<Line> for Resource {
    fn from(line: Line) -> Self {
        Self {
            id: line.iata,
            name: line.name,
            city: line.city,
            state: line.state,
            country: line.country,
            latitude: line.latitude,
            longitude: line.longitude,
            client_key: None,
        }
    }
}

/// All airports, in the order of the file.
///
/// # Errors
/// If the file is malformed.
pub(crate) fn all() -> Result<Vec<Resource>, Problem> {
    let mut lines = csv::Reader::from_reader(CSV.as_bytes());
    let lines = lines.deserialize::<Line>();
    Ok(lines.map(|line| line.map(Resource::from)).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn the_data_set_is_complete_and_its_codes_are_unique() {
        let all = super::all().unwrap();
        assert_eq!(all.len(), 3376);
        assert_eq!(all.iter().map(|airport| &airport.id).collect::<BTreeSet<_>>().len(), all.len());
        let hilo = all.iter().find(|airport| airport.id == "ITO").unwrap();
        assert_eq!((hilo.city.as_str(), hilo.state.as_str()), ("Hilo", "HI"));
    }
}
