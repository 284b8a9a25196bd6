//! What a client watches: wait, attach, logs, stats. No thread is held by any of them.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Response, header};
use sampan_engine::{AttachRequest, Engine, LogEntry, LogQuery, LogStream, WaitCondition};
use sampan_wire::object;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::query::moment;
use crate::respond::{ApiError, Reply};
use crate::server::{Call, Context, blocking};
use crate::{body, hijack, shape};

fn streaming_json(stream: crate::respond::Body) -> Response<crate::respond::Body> {
    let mut response = Response::new(stream);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The head goes out at once; the body when the condition holds.
pub(crate) async fn wait(context: Arc<Context>, call: Call, name: &str) -> Reply {
    let condition = match call.query.text("condition") {
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(ApiError::invalid(format!("invalid condition: \"{other}\""))),
    };
    let (engine, name) = (Arc::clone(&context.engine), name.to_owned());
    let mut subscription = blocking(move || engine.wait(&name, condition)).await??;
    let (writer, stream) = body::streaming();
    tokio::spawn(async move {
        let result = tokio::select! {
            result = std::future::poll_fn(|task| subscription.poll_next(task)) => result,
            () = writer.closed() => None,
        };
        if let Some(result) = result {
            // The error of a failed start is the start's answer; here it would be shown a second time.
            writer.send(object! { "StatusCode": result.code }.print() + "\n").await;
        }
    });
    Ok(streaming_json(stream))
}

pub(crate) async fn attach(context: Arc<Context>, mut call: Call, name: &str) -> Reply {
    let upgrade = hyper::upgrade::on(&mut call.request);
    let headers = call.request.headers().clone();
    let wants = |key: &str| call.query.truth(key);
    let request = AttachRequest { stdin: wants("stdin"), stdout: wants("stdout"), stderr: wants("stderr") };
    let (stream, logs) = (wants("stream"), wants("logs"));
    if logs {
        return Err(ApiError::unsupported("attach with logs (read them with the logs request)"));
    }
    let (engine, name) = (Arc::clone(&context.engine), name.to_owned());
    let request = if stream { request } else { AttachRequest { stdin: false, stdout: false, stderr: false } };
    let attached = blocking(move || engine.attach(&name, request)).await??;
    let framing = hijack::Framing { announced: call.api >= (1, 42), wanted: false };
    Ok(hijack::join(upgrade, &headers, attached, framing, None))
}

pub(crate) async fn logs(context: Arc<Context>, call: Call, name: &str) -> Reply {
    let query = &call.query;
    let (stdout, stderr) = (query.truth("stdout"), query.truth("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::invalid("Bad parameters: you must choose at least one stream"));
    }
    let time = |key: &str| query.get(key).filter(|text| !matches!(*text, "" | "0")).map(moment).transpose();
    let tail = query.get("tail").filter(|text| !matches!(*text, "" | "all")).and_then(|text| text.parse::<i64>().ok());
    let tail = tail.and_then(|count| usize::try_from(count).ok());
    let wish = LogQuery { stdout, stderr, tail, since: time("since")?, until: time("until")?, follow: query.truth("follow") };
    let (timestamps, details) = (query.truth("timestamps"), query.truth("details"));
    let (engine, name) = (Arc::clone(&context.engine), name.to_owned());
    let (known, shown) = (Arc::clone(&engine), name.clone());
    let logs = blocking(move || known.logs(&shown, &wish)).await??;
    // Subscribed before the first read, so that an end in between is not missed.
    let end = blocking(move || engine.wait(&name, WaitCondition::NotRunning)).await?.ok();
    let (writer, stream) = body::streaming();
    let tty = logs.tty;
    tokio::spawn(async move {
        let format = Format { tty, timestamps, details };
        if let Err(error) = follow(logs.stream, end, &writer, &format).await {
            tracing::debug!(%error, "log");
        }
    });
    let mut response = Response::new(stream);
    let kind = if !tty && call.api >= (1, 42) { "application/vnd.docker.multiplexed-stream" } else { "application/vnd.docker.raw-stream" };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

struct Format {
    tty: bool,
    timestamps: bool,
    details: bool,
}

impl Format {
    fn put(&self, entry: &LogEntry, out: &mut Vec<u8>) {
        let mut text = String::new();
        if self.timestamps {
            text.push_str(&padded(&entry.time));
            text.push(' ');
        }
        if self.details {
            let pairs: Vec<String> = entry.attrs.iter().map(|(key, value)| format!("{key}={value}")).collect();
            text.push_str(&pairs.join(","));
            text.push(' ');
        }
        text.push_str(&entry.log);
        if !self.tty {
            let number = if entry.stream == "stderr" { 2 } else { 1 };
            out.extend_from_slice(&[number, 0, 0, 0]);
            out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        }
        out.extend_from_slice(text.as_bytes());
    }
}

/// Nine digits after the point, as clients expect.
fn padded(time: &str) -> String {
    let body = time.trim_end_matches('Z');
    let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
    format!("{whole}.{fraction:0<9}Z")
}

/// Sends what is there, then what comes, until the container ends or the client goes.
async fn follow(
    stream: LogStream,
    end: Option<sampan_engine::Subscription<sampan_engine::WaitResult>>,
    writer: &body::BodyWriter,
    format: &Format,
) -> std::io::Result<()> {
    let mut stream = stream;
    let mut end = end;
    let wake = stream.wake().map(|fd| fd.try_clone_to_owned()).transpose()?;
    #[expect(deprecated, reason = "its successor is unsafe for types that lie about their descriptor; an OwnedFd does not")]
    let wake = wake.map(|fd| AsyncFd::with_interest(fd, Interest::READABLE)).transpose()?;
    let mut over = false;
    loop {
        let mut out = Vec::new();
        while let Some(entry) = stream.next()? {
            format.put(&entry, &mut out);
            if out.len() > 128 * 1024 && !writer.send(std::mem::take(&mut out)).await {
                return Ok(());
            }
        }
        if !out.is_empty() && !writer.send(out).await {
            return Ok(());
        }
        let Some(wake) = &wake else { return Ok(()) };
        if over || stream.is_over() {
            return Ok(());
        }
        tokio::select! {
            ready = wake.readable() => {
                stream.clear_wake();
                ready?.clear_ready();
            }
            () = writer.closed() => return Ok(()),
            () = ended(&mut end) => over = true,
        }
    }
}

async fn ended(end: &mut Option<sampan_engine::Subscription<sampan_engine::WaitResult>>) {
    match end {
        Some(subscription) => {
            let _result = std::future::poll_fn(|task| subscription.poll_next(task)).await;
        }
        None => std::future::pending().await,
    }
}

fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

pub(crate) async fn stats(context: Arc<Context>, call: Call, name: &str) -> Reply {
    let (stream, one_shot) = (call.query.truth_or("stream", true), call.query.truth("one-shot"));
    let (engine, name) = (Arc::clone(&context.engine), name.to_owned());
    let (known, shown) = (Arc::clone(&engine), name.clone());
    let view = blocking(move || known.inspect(&shown, false)).await??;
    let (writer, out) = body::streaming();
    let (id, shown_name) = (view.spec.id.clone(), view.spec.name.clone());
    tokio::spawn(async move {
        let mut before = None;
        let mut before_time = 0;
        let mut first = true;
        loop {
            let Ok(sample) = sample(&engine, &id).await else { return };
            let time = now();
            // Without an earlier sample there is no rate: unless asked for just one, a second is waited for.
            if !first || one_shot || stream || sample.is_none() {
                let document = shape::system::stats(
                    &id,
                    &shown_name,
                    sample.as_ref(),
                    before.as_ref(),
                    (if sample.is_some() { time } else { 0 }, before_time),
                );
                if !writer.send(document.print() + "\n").await || !stream {
                    return;
                }
            }
            (before, before_time, first) = (sample, time, false);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = writer.closed() => return,
            }
        }
    });
    Ok(streaming_json(out))
}

async fn sample(engine: &Arc<Engine>, id: &str) -> Result<Option<sampan_engine::Counters>, ApiError> {
    let (engine, id) = (Arc::clone(engine), id.to_owned());
    Ok(blocking(move || engine.stats(&id)).await??)
}
