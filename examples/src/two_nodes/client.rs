//! A client: it sends the requests of a user, to either node, and checks the responses.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use reqwest::{Method, StatusCode};

use super::ack_log::{AckLog, Known};
use super::cluster::NAMES;
use super::target::{Answer, Target};
use crate::app::{Changes, NewResource, Page, Resource};

const CITIES: [&str; 6] = ["Hilo", "Nome", "Bangor", "Ely", "Marfa", "Key West"];

/// The results of one client.
#[derive(Debug, Default)]
pub(super) struct Experience {
    pub(super) ack_log: AckLog,
    /// Reads that did not show a write that the same node had acknowledged.
    pub(super) violations: Vec<String>,
    /// Responses after which the outcome is unknown.
    pub(super) unknown: Vec<String>,
}

/// One client.
pub(super) struct Client {
    name: String,
    target: Arc<Target>,
    airports: Arc<[Resource]>,
    rng: StdRng,
    posted: u32,
    /// Keys of rows that exist as far as this client knows.
    live: Vec<String>,
    /// The row that this client posted last, by node.
    last_posted: [Option<Resource>; 2],
    seen: Experience,
}

impl Client {
    pub(super) fn new(
        number: u64,
        seed: u64,
        target: Arc<Target>,
        airports: Arc<[Resource]>,
    ) -> Self {
        Self {
            name: format!("client{number}"),
            target,
            airports,
            rng: StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(number)),
            posted: 0,
            live: Vec::new(),
            last_posted: [None, None],
            seen: Experience::default(),
        }
    }

    /// Runs until all requests are sent.
    pub(super) async fn run(mut self) -> Experience {
        while self.target.goes_on() {
            let node = self.rng.random_range(0..NAMES.len());
            match self.rng.random_range(0..100) {
                0..40 => self.download(node).await,
                40..62 => self.post(node).await,
                62..76 => self.search(node).await,
                76..90 => self.change(node).await,
                _ => self.delete(node).await,
            }
        }
        self.seen
    }

    /// A GET that inserts; a second one must find the row stored.
    async fn download(&mut self, node: usize) {
        let Some(airport) = self.airports.choose(&mut self.rng).cloned() else { return };
        let answer = self.get(node, &airport.id).await;
        match &answer {
            Answer::Given { stored, .. }
                if answer.row(StatusCode::OK).as_ref() == Some(&airport) =>
            {
                self.seen.ack_log.kept.insert(airport.id.clone());
                if !stored {
                    let again = self.get(node, &airport.id).await;
                    let found = matches!(again, Answer::Given { stored: true, .. });
                    self.must(
                        found,
                        node,
                        &format!("downloaded {} but did not store it", airport.id),
                        &again,
                    );
                }
            }
            _ => self.must(false, node, &format!("was sent a GET for {}", airport.id), &answer),
        }
    }

    async fn post(&mut self, node: usize) {
        let new = self.new_resource();
        let key = new.client_key.clone().unwrap_or_default();
        let request = self.target.request(node, Method::POST, "/resources").json(&new);
        let answer = self.target.send(request).await;
        let Some(row) = answer.row(StatusCode::CREATED) else {
            self.seen.ack_log.rows.insert(key, Known::Unknown);
            return self.must(false, node, "was sent a POST", &answer);
        };
        let expected = new.with_id(row.id.clone());
        self.must(row == expected, node, "returned another row than was posted", &answer);
        self.must_show(node, &expected).await;
        self.live.push(key.clone());
        self.last_posted[node] = Some(expected.clone());
        self.seen.ack_log.rows.insert(key, Known::Present(expected));
    }

    /// A search must find the row that was posted to the same node.
    async fn search(&mut self, node: usize) {
        let posted = self.last_posted[node].clone().filter(|row| self.is_live(row));
        let search = posted.as_ref().map_or("International", |row| &row.name).to_owned();
        let page = Page { search: Some(search), after: None, limit: Some(10) };
        let request = self.target.request(node, Method::GET, "/resources").query(&page);
        let answer = self.target.send(request).await;
        let found: Vec<Resource> = match &answer {
            Answer::Given { status: StatusCode::OK, body, .. } => {
                serde_json::from_slice(body).unwrap_or_default()
            }
            _ => return self.must(false, node, "was sent a search", &answer),
        };
        if let Some(row) = posted {
            let shown = found.iter().any(|found| found.id == row.id);
            self.must(shown, node, &format!("did not find {}", row.name), &answer);
        }
    }

    /// A PUT or a PATCH of an own row.
    async fn change(&mut self, node: usize) {
        let Some((key, row)) = self.some_row() else { return self.post(node).await };
        let path = format!("/resources/{}", row.id);
        let city = self.city();
        let latitude = self.rng.random_range(-90.0..90.0);
        let expected = Resource { city: city.clone(), latitude, ..row };
        let request = if self.rng.random() {
            let changes =
                Changes { city: Some(city), latitude: Some(latitude), ..Changes::default() };
            self.target.request(node, Method::PATCH, &path).json(&changes)
        } else {
            self.target.request(node, Method::PUT, &path).json(&NewResource::from(expected.clone()))
        };
        let answer = self.target.send(request).await;
        if answer.row(StatusCode::OK).as_ref() != Some(&expected) {
            return self.set_aside(node, &key, "was sent a change", &answer);
        }
        self.must_show(node, &expected).await;
        self.seen.ack_log.rows.insert(key, Known::Present(expected));
    }

    async fn delete(&mut self, node: usize) {
        let Some((key, row)) = self.some_row() else { return self.post(node).await };
        let request = self.target.request(node, Method::DELETE, &format!("/resources/{}", row.id));
        let answer = self.target.send(request).await;
        if !answer.is(StatusCode::NO_CONTENT) {
            return self.set_aside(node, &key, "was sent a DELETE", &answer);
        }
        let again = self.get(node, &row.id).await;
        self.must(
            again.is(StatusCode::NOT_FOUND),
            node,
            &format!("still returned {key} after its deletion"),
            &again,
        );
        self.live.retain(|live| *live != key);
        self.seen.ack_log.rows.insert(key, Known::Deleted);
    }

    /// The response to a write of an own row was not the expected one. The row is not used any
    /// more.
    fn set_aside(&mut self, node: usize, key: &str, what: &str, answer: &Answer) {
        // Without a response the row may be old or new. With a wrong one the acknowledged row still
        // counts.
        if answer.is_unknown() {
            self.seen.ack_log.rows.insert(key.to_owned(), Known::Unknown);
        }
        self.live.retain(|live| live != key);
        self.must(false, node, &format!("{what} ({key})"), answer);
    }

    async fn get(&self, node: usize, id: &str) -> Answer {
        self.target.send(self.target.request(node, Method::GET, &format!("/resources/{id}"))).await
    }

    async fn must_show(&mut self, node: usize, expected: &Resource) {
        let answer = self.get(node, &expected.id).await;
        let shown = answer.row(StatusCode::OK).as_ref() == Some(expected);
        self.must(
            shown,
            node,
            &format!("did not return {:?} as acknowledged", expected.client_key),
            &answer,
        );
    }

    /// A required property; a response with an unknown outcome does not violate it.
    fn must(&mut self, so: bool, node: usize, otherwise: &str, answer: &Answer) {
        let node = NAMES[node];
        match answer {
            Answer::Unknown(reason) => {
                self.seen.unknown.push(format!("{node} {otherwise}: {reason}"))
            }
            Answer::Given { status, body, .. } if !so => {
                let body = String::from_utf8_lossy(body);
                self.seen
                    .violations
                    .push(format!("{node} {otherwise}: {status} {}", body.trim_end()));
            }
            Answer::Given { .. } => {}
        }
    }

    fn is_live(&self, row: &Resource) -> bool {
        row.client_key.as_ref().is_some_and(|key| self.live.contains(key))
    }

    fn some_row(&mut self) -> Option<(String, Resource)> {
        let key = self.live.choose(&mut self.rng)?.clone();
        match self.seen.ack_log.rows.get(&key) {
            Some(Known::Present(row)) => Some((key, row.clone())),
            _ => None,
        }
    }

    fn city(&mut self) -> String {
        CITIES.choose(&mut self.rng).copied().unwrap_or_default().to_owned()
    }

    fn new_resource(&mut self) -> NewResource {
        self.posted += 1;
        let key = format!("{}-{:05}", self.name, self.posted);
        NewResource {
            name: format!("Airfield of {key}"),
            city: self.city(),
            state: "XX".into(),
            country: "USA".into(),
            latitude: self.rng.random_range(-90.0..90.0),
            longitude: self.rng.random_range(-180.0..180.0),
            client_key: Some(key),
        }
    }
}
