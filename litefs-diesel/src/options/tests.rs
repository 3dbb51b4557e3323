//! Tests of the options.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use litefs_rpc::wire::Delivery;

use super::*;
use crate::consistency::{Consistency, WhenBehind};

fn vars(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn c1_defaults_work_with_no_options() {
    let options = LiteFsBuilder::new("/litefs/app.db").build().unwrap();
    assert_eq!(options.listen, "127.0.0.1:20203".parse().unwrap());
    assert!(options.serve && options.wal && !options.allow_insecure);
    assert_eq!(options.primary_timeout, Duration::from_secs(5));
    assert_eq!(options.consistency, Consistency::ReadYourWrites);
    assert_eq!(options.delivery, Delivery::ExactlyOnce);
    assert_eq!(options.outcome_retention, Duration::from_secs(300));
}

#[test]
fn c4_the_builder_wins_over_the_environment() {
    let all = vars(&[
        ("LITEFS_RPC_LISTEN", "127.0.0.1:9"),
        ("LITEFS_RPC_ADVERTISE", "here:9"),
        ("LITEFS_SERVE", "0"),
        ("LITEFS_PRIMARY_TIMEOUT_MS", "7"),
        ("LITEFS_CONSISTENCY", "strong"),
        ("LITEFS_WHEN_BEHIND", "fail"),
        ("LITEFS_DELIVERY", "at-most-once"),
        ("LITEFS_LOCAL_WRITES", "grouped"),
        ("LITEFS_EXCLUSIVE_CONNECTIONS", "0"),
        ("LITEFS_DURABILITY", "2"),
        ("LITEFS_READ_PAUSE_MS", "0"),
        ("LITEFS_OUTCOME_RETENTION_MS", "60000"),
        ("LITEFS_RPC_SECRET", "0123456789abcdef"),
    ]);
    let by_env = LiteFsBuilder::new("/litefs/app.db").from_vars(all.clone()).build().unwrap();
    let by_builder = LiteFsBuilder::new("/litefs/app.db")
        .listen("127.0.0.1:9".parse().unwrap())
        .advertise("here:9")
        .serve(false)
        .primary_timeout(Duration::from_millis(7))
        .consistency(Consistency::Strong)
        .when_behind(WhenBehind::Fail)
        .delivery(Delivery::AtMostOnce)
        .local_writes(LocalWrites::Grouped)
        .exclusive_connections(0)
        .durability(Durability::Replicas(2))
        .read_pause(Duration::ZERO)
        .outcome_retention(Duration::from_secs(60))
        .secret("0123456789abcdef")
        .build()
        .unwrap();
    for options in [&by_env, &by_builder] {
        assert_eq!(options.listen, "127.0.0.1:9".parse().unwrap());
        assert_eq!(options.advertise.as_deref(), Some("here:9"));
        assert!(!options.serve);
        assert_eq!(options.primary_timeout, Duration::from_millis(7));
        assert_eq!(options.consistency, Consistency::Strong);
        assert_eq!(options.when_behind, WhenBehind::Fail);
        assert_eq!(options.delivery, Delivery::AtMostOnce);
        assert_eq!(
            (options.local_writes, options.exclusive_connections),
            (LocalWrites::Grouped, 0)
        );
        assert_eq!(options.durability, Durability::Replicas(2));
        assert_eq!(options.read_pause, Duration::ZERO);
        assert_eq!(options.outcome_retention, Duration::from_secs(60));
        assert!(options.secret.is_some());
    }
    let both = LiteFsBuilder::new("/litefs/app.db")
        .from_vars(all)
        .consistency(Consistency::Eventual)
        .build();
    assert_eq!(both.unwrap().consistency, Consistency::Eventual);
}

#[test]
fn c3_bad_values_are_refused_by_name() {
    let error = |builder: LiteFsBuilder| builder.build().err().expect("refused").to_string();
    let new = || LiteFsBuilder::new("/litefs/app.db");
    for (variable, value, option) in [
        ("LITEFS_PRIMARY_TIMEOUT_MS", "0", "primary_timeout"),
        ("LITEFS_FORWARD_TIMEOUT_MS", "-1", "forward_timeout"),
        ("LITEFS_READ_TIMEOUT_MS", "soon", "read_timeout"),
        ("LITEFS_RPC_LISTEN", "nowhere", "listen"),
        ("LITEFS_SERVE", "maybe", "serve"),
        ("LITEFS_CONSISTENCY", "some", "consistency"),
        ("LITEFS_DELIVERY", "twice", "delivery"),
        ("LITEFS_LOCAL_WRITES", "some", "local_writes"),
        ("LITEFS_EXCLUSIVE_CONNECTIONS", "-1", "exclusive_connections"),
        ("LITEFS_DURABILITY", "0", "durability"),
        ("LITEFS_READ_PAUSE_MS", "-1", "read_pause"),
        ("LITEFS_OUTCOME_RETENTION_MS", "1000", "outcome_retention"),
        ("LITEFS_RPC_SECRET", "short", "secret"),
        ("LITEFS_RPC_ADVERTISE", "no-port", "advertise"),
    ] {
        let error = error(new().from_vars(vars(&[(variable, value)])));
        assert!(error.contains(option) && error.contains(variable), "{error}");
    }
    assert!(error(new().read_timeout(Duration::ZERO)).contains("read_timeout"));
    assert!(error(new().advertise("no-port")).contains("advertise"));
    assert!(!error(new().secret("hush")).contains("hush"));
}

#[test]
fn a_short_secret_is_not_shown() {
    let new = || LiteFsBuilder::new("/litefs/app.db");
    let error = |builder: LiteFsBuilder| builder.build().err().expect("refused").to_string();
    assert_eq!(
        error(new().secret("hush")),
        "option `secret`: \"(4 bytes)\" is not allowed, expected at least 16 random bytes"
    );
    assert_eq!(
        error(new().from_vars(vars(&[("LITEFS_RPC_SECRET", "short")]))),
        "option `secret` (environment variable LITEFS_RPC_SECRET): \"(5 bytes)\" is not allowed, \
         expected at least 16 random bytes"
    );
}

#[test]
fn every_option_is_read_from_its_variable() {
    assert!(!Options::VARIABLES.is_empty());
    for (option, variable) in Options::VARIABLES {
        let error = refused(variable);
        assert!(error.starts_with(&format!("option `{option}`")), "{error}");
        assert!(error.contains(&format!("(environment variable {variable})")), "{error}");
    }
}

/// The error where a variable is no text: no option accepts that.
fn refused(variable: &str) -> String {
    let not_utf8 = OsString::from_vec(vec![0xff]);
    let builder = LiteFsBuilder::new("/litefs/app.db").from_vars([(variable, not_utf8)]);
    match builder.build() {
        Ok(_) => panic!("{variable} is not read"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_table_in_the_readme_agrees_with_the_code() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"));
    let readme = readme.unwrap();
    let rows = readme.lines().filter(|line| line.starts_with("| `LITEFS_"));
    let mut defaults = 0;
    for row in rows {
        let [variable, _, default] = cells(row)[..] else { panic!("{row}") };
        let variable = variable.trim_matches('`');
        assert!(refused(variable).contains(variable));
        // A default that is not a value is explained in words.
        let Some((value, condition)) = default.strip_prefix('`').and_then(|d| d.split_once('`'))
        else {
            continue;
        };
        let builder = || match condition.trim() {
            "" => LiteFsBuilder::new("/litefs/app.db"),
            "with a secret" => LiteFsBuilder::new("/litefs/app.db").secret("0123456789abcdef"),
            other => panic!("{other:?} is not known here"),
        };
        let with = builder().from_vars([(variable, value)]).build().unwrap().describe();
        assert_eq!(with, builder().build().unwrap().describe(), "{row}");
        defaults += 1;
    }
    assert!(defaults >= 5, "the table was not found");
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}
