//! Tests of the options, from the builder and from the environment.

use std::path::Path;
use std::time::Duration;

use super::*;

const NO_VARS: [(&str, &str); 0] = [];

fn refused(builder: ConfigBuilder) -> ConfigError {
    builder.build().expect_err("the option should have been refused")
}

#[test]
fn c1_defaults_work_with_no_options() {
    let config = Config::builder("/litefs/app.db").build().unwrap();
    assert_eq!(config.database_url(), "/litefs/app.db");
    assert_eq!(config.mount(), Path::new("/litefs"));
    assert_eq!(config.database_name(), "app.db");
    assert_eq!(config.http_url(), "http://localhost:20202");
    assert_eq!(config.node(), None);
    assert_eq!(config.rpc_port(), 20203);
    assert_eq!(config.poll_interval(), Duration::from_millis(250));
    assert_eq!(config.debounce(), Duration::from_millis(20));
    assert_eq!(config.quiet_after(), Duration::from_secs(10));
    assert_eq!(config.position_poll(), Duration::from_millis(2));
    assert_eq!(config.http_timeout(), Duration::from_secs(1));
    assert_eq!(config.reconnect_min(), Duration::from_millis(50));
    assert_eq!(config.reconnect_max(), Duration::from_secs(2));
    assert!(!config.require_litefs());
    assert_eq!(config.detectors(), Detectors::ALL);
    assert_eq!(config.tracking_table().as_str(), "_litefs_primary");
}

fn all_set() -> ConfigBuilder {
    Config::builder("/litefs/app.db")
        .http_url("http://10.0.0.1:9/")
        .node("node-a")
        .rpc_port(7)
        .poll_interval(Duration::from_millis(1))
        .debounce(Duration::from_millis(2))
        .quiet_after(Duration::from_millis(3))
        .position_poll(Duration::from_millis(4))
        .http_timeout(Duration::from_millis(5))
        .reconnect_min(Duration::from_millis(6))
        .reconnect_max(Duration::from_millis(7))
        .require_litefs(true)
        .detectors(Detectors { info: true, ..Detectors::NONE })
        .tracking_table("who")
}

const ALL_VARS: [(&str, &str); 13] = [
    ("LITEFS_HTTP_URL", "http://10.0.0.1:9/"),
    ("LITEFS_NODE", "node-a"),
    ("LITEFS_RPC_PORT", "7"),
    ("LITEFS_POLL_INTERVAL_MS", "1"),
    ("LITEFS_DEBOUNCE_MS", "2"),
    ("LITEFS_QUIET_AFTER_MS", "3"),
    ("LITEFS_POSITION_POLL_MS", "4"),
    ("LITEFS_HTTP_TIMEOUT_MS", "5"),
    ("LITEFS_RECONNECT_MIN_MS", "6"),
    ("LITEFS_RECONNECT_MAX_MS", "7"),
    ("LITEFS_REQUIRE", "1"),
    ("LITEFS_DETECTORS", " info ,"),
    ("LITEFS_TRACKING_TABLE", "who"),
];

#[test]
fn c2_each_option_overrides_its_default() {
    let config = all_set().build().unwrap();
    assert_eq!(config.http_url(), "http://10.0.0.1:9");
    assert_eq!(config.node().map(AsRef::as_ref), Some("node-a"));
    assert_eq!(config.rpc_port(), 7);
    assert_eq!(config.poll_interval(), Duration::from_millis(1));
    assert_eq!(config.debounce(), Duration::from_millis(2));
    assert_eq!(config.quiet_after(), Duration::from_millis(3));
    assert_eq!(config.position_poll(), Duration::from_millis(4));
    assert_eq!(config.http_timeout(), Duration::from_millis(5));
    assert_eq!(config.reconnect_min(), Duration::from_millis(6));
    assert_eq!(config.reconnect_max(), Duration::from_millis(7));
    assert!(config.require_litefs());
    assert_eq!(config.detectors(), Detectors { info: true, ..Detectors::NONE });
    assert_eq!(config.tracking_table().as_str(), "who");
}

#[test]
fn c4_environment_and_builder_give_the_same_configuration() {
    let from_env = Config::builder("/litefs/app.db").from_vars(ALL_VARS).build().unwrap();
    assert_eq!(format!("{from_env:?}"), format!("{:?}", all_set().build().unwrap()));
}

#[test]
fn c4_the_builder_wins_over_the_environment_in_either_order() {
    let builder = Config::builder("/litefs/app.db");
    let after = builder.clone().from_vars([("LITEFS_NODE", "env")]).node("set").build().unwrap();
    let before = builder.clone().node("set").from_vars([("LITEFS_NODE", "env")]).build().unwrap();
    assert_eq!(after.node().map(AsRef::as_ref), Some("set"));
    assert_eq!(before.node().map(AsRef::as_ref), Some("set"));
    // Even a variable that would be refused does not matter then.
    assert!(builder.rpc_port(1).from_vars([("LITEFS_RPC_PORT", "x")]).build().is_ok());
}

#[test]
fn c4_a_variable_that_is_empty_or_foreign_is_not_set() {
    let vars = [("LITEFS_NODE", ""), ("NODE", "x"), ("LITEFS_SOMETHING", "x")];
    let config = Config::builder("/litefs/app.db").from_vars(vars).build().unwrap();
    assert_eq!(config.node(), None);
}

#[test]
fn c3_a_bad_option_is_refused_by_name() {
    let builder = || Config::builder("/litefs/app.db").from_vars(NO_VARS);
    let zero = Duration::ZERO;
    let cases = [
        ("database", Config::builder("")),
        ("http_url", builder().http_url("")),
        ("http_url", builder().http_url("localhost:20202")),
        ("http_url", builder().http_url("https://localhost")),
        ("http_url", builder().http_url("http://")),
        ("http_url", builder().http_url("http://a/?b")),
        ("node", builder().node("")),
        ("node", builder().node("a b")),
        ("rpc_port", builder().rpc_port(0)),
        ("poll_interval", builder().poll_interval(zero)),
        ("poll_interval", builder().poll_interval(Duration::MAX)),
        ("debounce", builder().debounce(zero)),
        ("quiet_after", builder().quiet_after(zero)),
        ("position_poll", builder().position_poll(zero)),
        ("http_timeout", builder().http_timeout(zero)),
        ("reconnect_min", builder().reconnect_min(zero)),
        ("reconnect_max", builder().reconnect_max(zero)),
        ("reconnect_max", builder().reconnect_max(Duration::from_millis(1))),
        ("tracking_table", builder().tracking_table("x; DROP TABLE y")),
        ("tracking_table", builder().tracking_table("")),
    ];
    for (option, builder) in cases {
        let error = refused(builder);
        assert_eq!(error.option, option);
        assert_eq!(error.variable, None);
        assert!(error.to_string().contains(option), "{error}");
    }
}

#[test]
fn c3_a_bad_variable_is_refused_by_its_name_and_the_options() {
    for (name, _) in ALL_VARS {
        for value in ["-1 ", "0", "1; x", "ünknown"] {
            let fine =
                matches!((name, value), ("LITEFS_REQUIRE", "0") | ("LITEFS_NODE", "0" | "ünknown"));
            let result = Config::builder("/litefs/app.db").from_vars([(name, value)]).build();
            match result {
                Ok(_) => assert!(fine, "{name}={value:?} was accepted"),
                Err(error) => {
                    assert!(!fine, "{error}");
                    assert_eq!(error.variable, Some(name));
                    let message = error.to_string();
                    assert!(message.contains(name) && message.contains(error.option), "{message}");
                }
            }
        }
    }
}

#[test]
fn d18_each_detector_can_be_switched_off_but_not_all() {
    let builder = || Config::builder("/litefs/app.db");
    for off in [
        Detectors { events: false, ..Detectors::ALL },
        Detectors { primary_file: false, ..Detectors::ALL },
        Detectors { info: false, ..Detectors::ALL },
        Detectors { row: false, ..Detectors::ALL },
    ] {
        assert_eq!(builder().detectors(off).build().unwrap().detectors(), off);
    }
    assert_eq!(refused(builder().detectors(Detectors::NONE)).option, "detectors");
    assert_eq!(refused(builder().from_vars([("LITEFS_DETECTORS", ",")])).option, "detectors");
    assert_eq!(
        refused(builder().from_vars([("LITEFS_DETECTORS", "events,row2")])).option,
        "detectors"
    );
}

/// Not UTF-8.
fn garbled() -> std::ffi::OsString {
    std::os::unix::ffi::OsStringExt::from_vec(b"node-\xff".to_vec())
}

#[test]
fn c3_a_variable_that_is_not_utf8_is_refused_by_its_name() {
    for (name, _) in ALL_VARS {
        let error = refused(Config::builder("/litefs/app.db").from_vars([(name, garbled())]));
        assert_eq!(error.variable, Some(name));
        assert_eq!(error.allowed, "text that is valid UTF-8");
    }
    let set = Config::builder("/litefs/app.db").node("set").from_vars([("LITEFS_NODE", garbled())]);
    assert!(set.build().is_ok(), "the builder's value needs no variable");
    let foreign =
        [("PATH".into(), garbled()), ("LITEFS_OTHER".into(), garbled()), (garbled(), garbled())];
    assert!(
        Config::builder("/litefs/app.db")
            .from_vars::<std::ffi::OsString, _>(foreign)
            .build()
            .is_ok()
    );
}

#[test]
fn s8_a_builder_with_the_environment_does_not_show_the_secret() {
    let vars = [("LITEFS_RPC_SECRET", "correct horse battery"), ("LITEFS_NODE", "node-a")];
    let shown = format!("{:?}", Config::builder("/litefs/app.db").from_vars(vars));
    assert!(!shown.contains("horse") && shown.contains("node-a"), "{shown}");
}
