//! The node's HTTP server: the part of LiteFS's API (its `http/server.go`) that applications use,
//! and the testkit's own.

mod body;

use std::convert::Infallible;
use std::future::pending;
use std::net::TcpListener;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;

use crate::command::Command;
use crate::context::Role;
use crate::engine::Engine;
use crate::error::Error;
use crate::execute::execute;
use crate::faults::{EventFormat, EventStreamFault, InfoFault};
use crate::runtime::ServerRuntime;
use body::Body;

/// The path of the testkit's commands.
pub(crate) const COMMAND_PATH: &str = "/testkit/command";
/// The size limit of a command, in bytes.
const MAX_COMMAND: usize = 64 << 10;
/// How long `POST /promote` may take to reach the primary.
const HANDOFF_LIMIT: Duration = Duration::from_secs(5);

/// Serves `engine` on `listener`. Dropping the server breaks all connections.
pub(crate) fn serve(listener: TcpListener, engine: &Arc<Engine>) -> Result<ServerRuntime, Error> {
    let engine = Arc::downgrade(engine);
    ServerRuntime::serve("the HTTP server", listener, |listener| accept(listener, engine))
}

async fn accept(listener: tokio::net::TcpListener, engine: Weak<Engine>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let engine = engine.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| respond(engine.clone(), request));
            // LiteFS is written in Go, which sends header names with capitals.
            let mut http = http1::Builder::new();
            http.title_case_headers(true).timer(TokioTimer::new());
            if let Err(error) = http.serve_connection(TokioIo::new(socket), service).await {
                tracing::debug!(%error, "HTTP connection ended");
            }
        });
    }
}

type Reply = Response<Body>;

async fn respond(engine: Weak<Engine>, request: Request<Incoming>) -> Result<Reply, Infallible> {
    let Some(engine) = engine.upgrade() else {
        return Ok(error(StatusCode::SERVICE_UNAVAILABLE, "shutting down"));
    };
    let path = request.uri().path().to_owned();
    let mut reply = match path.as_str() {
        COMMAND_PATH => command(&engine, request).await,
        _ if engine.context.faults.with(|settings| settings.frozen) => pending().await,
        path => litefs(&engine, path, &request).await,
    };
    let identity = &engine.context.identity;
    for (name, value) in [("litefs-cluster-id", &identity.cluster_id), ("litefs-id", &identity.id)]
    {
        if let Ok(value) = HeaderValue::from_str(value) {
            reply.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    Ok(reply)
}

async fn litefs(engine: &Arc<Engine>, path: &str, request: &Request<Incoming>) -> Reply {
    let method = request.method();
    match path {
        "/events" if method == Method::GET => events(engine).await,
        "/info" if method == Method::GET => info(engine).await,
        "/promote" if method == Method::POST => promote(engine),
        "/handoff" if method == Method::POST => {
            handoff(engine, request.uri().query().unwrap_or_default())
        }
        // LiteFS's replication needs HTTP/2. This server does not speak it: nodes use another
        // protocol.
        "/stream" if method == Method::POST => {
            error(StatusCode::UPGRADE_REQUIRED, "Upgrade to HTTP/2 required")
        }
        "/events" | "/info" | "/promote" | "/handoff" | "/stream" => {
            error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
        }
        _ => error(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

async fn events(engine: &Arc<Engine>) -> Reply {
    let (fault, format) =
        engine.context.faults.with(|settings| (settings.events, settings.event_format));
    match fault {
        EventStreamFault::Refuse => {
            return error(StatusCode::SERVICE_UNAVAILABLE, "event stream refused");
        }
        EventStreamFault::Hang => return pending().await,
        EventStreamFault::None | EventStreamFault::Silent => {}
    }
    let mime = match format {
        EventFormat::JsonLines => "application/json",
        EventFormat::ServerSentEvents => "text/event-stream",
    };
    reply(StatusCode::OK, mime, Body::Events { receiver: engine.context.listen(), format })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info<'a> {
    #[serde(rename = "clusterID")]
    cluster_id: &'a str,
    is_primary: bool,
    candidate: bool,
    path: String,
    primary: PrimaryInfo<'a>,
}

#[derive(Serialize)]
struct PrimaryInfo<'a> {
    hostname: &'a str,
}

async fn info(engine: &Arc<Engine>) -> Reply {
    match engine.context.faults.with(|settings| settings.info) {
        InfoFault::Refuse => return error(StatusCode::SERVICE_UNAVAILABLE, "info refused"),
        InfoFault::Hang => return pending().await,
        InfoFault::None => {}
    }
    let (identity, role) = (&engine.context.identity, engine.context.role());
    let hostname = match &role {
        Role::Primary => &identity.name,
        Role::Replica(primary) => primary,
        Role::None => "",
    };
    let info = Info {
        cluster_id: &identity.cluster_id,
        is_primary: role == Role::Primary,
        candidate: identity.candidate,
        path: identity.dir.display().to_string(),
        primary: PrimaryInfo { hostname },
    };
    let text = serde_json::to_vec_pretty(&info).expect("the info has string keys only");
    // Go detects the type from the bytes, and finds text.
    reply(StatusCode::OK, "text/plain; charset=utf-8", Body::full(text))
}

/// Asks the primary to hand off, without waiting for it.
fn promote(engine: &Arc<Engine>) -> Reply {
    match engine.context.role() {
        Role::Primary => return reply(StatusCode::OK, "text/plain; charset=utf-8", Body::full("")),
        _ if !engine.context.identity.candidate => {
            return error(StatusCode::CONFLICT, "not eligible to become primary");
        }
        Role::None | Role::Replica(_) => {}
    }
    let primary = engine.primary().filter(|_| engine.context.role() != Role::None);
    let Some(primary) = primary else {
        let text = "no primary is currently available for handoff, cannot promote";
        return error(StatusCode::INTERNAL_SERVER_ERROR, text);
    };
    let url = format!("{}/handoff?nodeID={}", primary.http_url, engine.peer.id);
    tokio::task::spawn_blocking(move || {
        let agent =
            ureq::Agent::config_builder().timeout_global(Some(HANDOFF_LIMIT)).build().new_agent();
        if let Err(error) = agent.post(&url).send_empty() {
            tracing::warn!(%error, "the primary did not hand off the lease");
        }
    });
    reply(StatusCode::OK, "text/plain; charset=utf-8", Body::full(""))
}

fn handoff(engine: &Arc<Engine>, query: &str) -> Reply {
    let id = query.split('&').find_map(|pair| pair.strip_prefix("nodeID=")).unwrap_or_default();
    if engine.context.role() != Role::Primary {
        error(StatusCode::INTERNAL_SERVER_ERROR, "not currently primary, cannot hand off")
    } else if engine.hand_off_to(id) {
        reply(StatusCode::OK, "text/plain; charset=utf-8", Body::full(""))
    } else {
        error(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("target node is not currently connected: {id}"),
        )
    }
}

async fn command(engine: &Arc<Engine>, request: Request<Incoming>) -> Reply {
    let bytes = match Limited::new(request.into_body(), MAX_COMMAND).collect().await {
        Ok(body) => body.to_bytes(),
        Err(reason) => return error(StatusCode::BAD_REQUEST, &reason.to_string()),
    };
    let order: Command = match serde_json::from_slice(&bytes) {
        Ok(order) => order,
        Err(reason) => return error(StatusCode::BAD_REQUEST, &reason.to_string()),
    };
    let engine = Arc::clone(engine);
    // Role changes wait for locks and threads.
    let done =
        tokio::task::spawn_blocking(move || execute(&engine.context.faults, &engine, order)).await;
    match done
        .map_err(|reason| reason.to_string())
        .and_then(|answer| answer.map_err(|reason| reason.to_string()))
    {
        Ok(answer) => {
            let text = serde_json::to_vec(&answer).expect("an answer has string keys only");
            reply(StatusCode::OK, "application/json", Body::full(text))
        }
        Err(reason) => error(StatusCode::CONFLICT, &reason),
    }
}

fn reply(status: StatusCode, mime: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(mime));
    reply
}

/// What Go's `http.Error` sends.
fn error(status: StatusCode, text: &str) -> Reply {
    let mut reply =
        reply(status, "text/plain; charset=utf-8", Body::full(Bytes::from(format!("{text}\n"))));
    let nosniff = HeaderValue::from_static("nosniff");
    reply.headers_mut().insert(HeaderName::from_static("x-content-type-options"), nosniff);
    reply
}
