//! The bytes of the special files and of the HTTP API.

use std::os::unix::fs::PermissionsExt;

use litefs_testkit::{EventFormat, EventStreamFault, InfoFault, Node};

use crate::support::{DB, Http, LIMIT, cluster, connect, eventually, insert, insert_rows, special};

#[test]
fn special_files_are_those_of_litefs_byte_for_byte() {
    let cluster = cluster(&["127.0.0.1:4001", "node-b"]);
    let (primary, replica) = (cluster.node("127.0.0.1:4001"), cluster.node("node-b"));
    assert_eq!(special(primary, ".primary"), None);
    assert_eq!(special(replica, ".primary").as_deref(), Some("127.0.0.1:4001\n"));
    assert_eq!(special(primary, ".lag").as_deref(), Some("+000000000\n"));
    let lag = special(replica, ".lag").expect(".lag");
    assert!(lag.len() == 11 && lag.starts_with("+00000") && lag.ends_with('\n'), "{lag:?}");
    let position = special(replica, "app.db-pos").expect("-pos");
    assert_eq!((position.len(), position), (34, format!("{}\n", primary.position(DB))));
    let mode =
        std::fs::metadata(replica.dir().join(".primary")).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o444);
}

#[test]
fn the_lag_of_a_node_without_a_primary_is_never() {
    let dir = tempfile::tempdir().expect("directory");
    let node = Node::builder("a").dir(dir.path().join("mount")).start().expect("node");
    assert_eq!(special(&node, ".lag").as_deref(), Some("+2147483647\n"));
    assert_eq!(special(&node, ".primary"), None);
}

#[test]
fn the_event_stream_has_the_headers_and_lines_of_litefs() {
    let cluster = cluster(&["node-a", "node-b"]);
    let (primary, replica) = (cluster.node("node-a"), cluster.node("node-b"));
    let mut on_primary = Http::request(&primary.http_url(), "GET", "/events");
    let mut on_replica = Http::request(&replica.http_url(), "GET", "/events");
    assert!(on_primary.head.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(on_primary.header("Content-Type"), Some("application/json"));
    assert_eq!(on_primary.header("Transfer-Encoding"), Some("chunked"));
    assert!(on_primary.header("Date").is_some());
    let id = on_primary.header("Litefs-Id").expect("id");
    assert!(
        id.len() == 16
            && id.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte)),
        "{id}"
    );
    assert!(
        on_primary
            .header("Litefs-Cluster-Id")
            .is_some_and(|id| id.len() == 20 && id.starts_with("LFSC"))
    );
    assert_eq!(
        on_primary.chunk().as_deref(),
        Some("{\"type\":\"init\",\"data\":{\"isPrimary\":true}}\n")
    );
    assert_eq!(
        on_replica.chunk().as_deref(),
        Some("{\"type\":\"init\",\"data\":{\"isPrimary\":false,\"hostname\":\"node-a\"}}\n")
    );
    insert(&mut connect(primary), "row").expect("insert");
    let position = primary.position(DB);
    let start = format!(
        "{{\"type\":\"tx\",\"db\":\"app.db\",\"data\":{{\"txID\":\"{:016x}\",\
         \"postApplyChecksum\":\"{:016x}\",\"pageSize\":4096,\"commit\":2,\"timestamp\":\"20",
        position.txid, position.checksum
    );
    let tx = on_primary.chunk().expect("tx");
    assert!(tx.starts_with(&start) && tx.ends_with("Z\"}}\n"), "{tx}");
    assert_eq!(on_replica.chunk(), Some(tx), "the replica reports the same transaction");
}

#[test]
fn info_is_indented_json_in_plain_text() {
    let cluster = cluster(&["node-a", "node-b"]);
    for (name, is_primary) in [("node-a", true), ("node-b", false)] {
        let node = cluster.node(name);
        let mut info = Http::request(&node.http_url(), "GET", "/info");
        assert_eq!(info.header("Content-Type"), Some("text/plain; charset=utf-8"));
        let expected = format!(
            r#"{{
  "clusterID": "{}",
  "isPrimary": {is_primary},
  "candidate": true,
  "path": "{}",
  "primary": {{
    "hostname": "node-a"
  }}
}}"#,
            info.header("Litefs-Cluster-Id").expect("cluster id"),
            node.dir().display()
        );
        assert_eq!(info.body(), expected);
    }
}

#[test]
fn wrong_methods_and_paths_are_refused_as_by_litefs() {
    let cluster = cluster(&["a", "b"]);
    let (primary, replica) = (cluster.node("a").http_url(), cluster.node("b").http_url());
    let table = [
        (&primary, "POST", "/events", "405 Method Not Allowed", "method not allowed\n"),
        (&primary, "POST", "/info", "405 Method Not Allowed", "method not allowed\n"),
        (&primary, "GET", "/promote", "405 Method Not Allowed", "method not allowed\n"),
        (&primary, "GET", "/pos", "404 Not Found", "404 page not found\n"),
        (&primary, "POST", "/promote", "200 OK", ""),
        (
            &primary,
            "POST",
            "/handoff?nodeID=00",
            "500 Internal Server Error",
            "target node is not currently connected: 00\n",
        ),
        (
            &replica,
            "POST",
            "/handoff?nodeID=00",
            "500 Internal Server Error",
            "not currently primary, cannot hand off\n",
        ),
    ];
    for (url, method, path, status, body) in table {
        let mut response = Http::request(url, method, path);
        assert!(
            response.head.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{method} {path}: {}",
            response.head
        );
        assert_eq!(response.body(), body, "{method} {path}");
    }
    cluster.lose_primary().expect("fault");
    let mut response = Http::request(&replica, "POST", "/promote");
    assert!(response.head.starts_with("HTTP/1.1 500 "));
    assert_eq!(response.body(), "no primary is currently available for handoff, cannot promote\n");
}

#[test]
fn a_node_that_is_not_a_candidate_cannot_be_promoted() {
    let dir = tempfile::tempdir().expect("directory");
    let node =
        Node::builder("a").dir(dir.path().join("mount")).candidate(false).start().expect("node");
    let mut response = Http::request(&node.http_url(), "POST", "/promote");
    assert!(response.head.starts_with("HTTP/1.1 409 Conflict"));
    assert_eq!(response.body(), "not eligible to become primary\n");
}

#[test]
fn event_streams_can_fail_and_change_their_format() {
    let cluster = cluster(&["a"]);
    let node = cluster.node("a");
    let url = node.http_url();
    let mut conn = connect(node);
    let mut stream = Http::request(&url, "GET", "/events");
    assert!(stream.chunk().is_some());

    node.set_event_stream_fault(EventStreamFault::Silent).expect("fault");
    insert_rows(&mut conn, 3);
    node.set_event_stream_fault(EventStreamFault::None).expect("fault");
    insert(&mut conn, "received").expect("insert");
    let txid = format!("{:016x}", node.position(DB).txid);
    assert!(
        stream.chunk().is_some_and(|line| line.contains(&txid)),
        "the events of the silent time are dropped"
    );

    node.drop_event_streams().expect("fault");
    assert_eq!(stream.chunk(), None, "broken off in the middle");
    assert!(Http::request(&url, "GET", "/events").chunk().is_some());

    node.set_event_stream_fault(EventStreamFault::Refuse).expect("fault");
    assert!(Http::request(&url, "GET", "/events").head.starts_with("HTTP/1.1 503 "));
    node.set_event_stream_fault(EventStreamFault::None).expect("fault");

    node.set_event_format(EventFormat::ServerSentEvents).expect("format");
    let mut stream = Http::request(&url, "GET", "/events");
    assert_eq!(stream.header("Content-Type"), Some("text/event-stream"));
    assert_eq!(
        stream.chunk().as_deref(),
        Some("data: {\"type\":\"init\",\"data\":{\"isPrimary\":true}}\n\n")
    );
}

#[test]
fn info_can_be_refused() {
    let cluster = cluster(&["a"]);
    let node = cluster.node("a");
    node.set_info_fault(InfoFault::Refuse).expect("fault");
    assert!(Http::request(&node.http_url(), "GET", "/info").head.starts_with("HTTP/1.1 503 "));
    node.set_info_fault(InfoFault::None).expect("fault");
    assert!(Http::request(&node.http_url(), "GET", "/info").head.starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_snapshot_is_one_event_on_the_replica() {
    let cluster = cluster(&["a", "b"]);
    insert_rows(&mut connect(cluster.node("a")), 5);
    cluster.wait_for_sync(LIMIT).expect("sync");
    let mut events = Http::request(&cluster.node("a").http_url(), "GET", "/events");
    assert!(events.chunk().is_some());
    cluster.promote_losing_tail("b", 3).expect("promote");
    let mut seen = Vec::new();
    let target = format!("{:016x}", cluster.node("b").position(DB).txid);
    eventually("the snapshot", || {
        seen.extend(events.chunk());
        seen.iter().any(|line| line.contains(&target))
    });
    assert_eq!(seen.iter().filter(|line| line.contains("\"tx\"")).count(), 1, "{seen:?}");
}
