//! The control socket: how `sandbox inspect`, `verify`, `fault`, `clock` and `exec` reach the sandbox that serves.
//!
//! One JSON line asks, one answers. `exec` also hands over its three standard streams, so that the command in the
//! host reads and writes them itself.

use crate::functions::Setup;
use crate::sandbox::Sandbox;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Ask {
    Inspect,
    Verify { cut_off: Vec<String>, host: Option<String> },
    Snapshot { host: Option<String>, exclude_data: bool, exclude: Vec<String>, description: Option<String> },
    Function { name: String, event: Option<Value>, setup: Option<Setup> },
    Tick { setup: Option<Setup> },
    Fault { name: String, args: Vec<String> },
    Settle { within_secs: u64 },
    Clock { advance_secs: u64 },
    Exec { host: String, argv: Vec<String> },
    Assume { role: String },
}

/// Asks the sandbox of `socket`. The streams go along for `exec`.
pub fn ask(socket: &Path, what: &Ask) -> Result<Value, String> {
    let stream = UnixStream::connect(socket)
        .map_err(|e| format!("no sandbox serves there ({}: {e}); start one with: sandbox up --dir DIR", socket.display()))?;
    let line = serde_json::to_string(what).map_err(|e| e.to_string())? + "\n";
    let streams: [RawFd; 3] = [0, 1, 2];
    let rights = [ControlMessage::ScmRights(&streams)];
    let with: &[ControlMessage<'_>] = if matches!(what, Ask::Exec { .. }) { &rights } else { &[] };
    sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(line.as_bytes())], with, MsgFlags::empty(), None)
        .map_err(|e| e.to_string())?;
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).map_err(|e| e.to_string())?;
    let reply: Value = serde_json::from_str(&reply).map_err(|_| "the sandbox ended before it answered".to_owned())?;
    match reply.get("error").and_then(Value::as_str) {
        Some(why) => Err(why.to_owned()),
        None => Ok(reply["ok"].clone()),
    }
}

/// Answers on the control socket, each connection in a thread of its own.
pub fn serve(sandbox: Arc<Sandbox>, listener: UnixListener) {
    let runtime = tokio::runtime::Handle::current();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (sandbox, runtime) = (sandbox.clone(), runtime.clone());
            std::thread::spawn(move || {
                let _guard = runtime.enter();
                let _ = answer(&sandbox, stream);
            });
        }
    });
}

fn answer(sandbox: &Arc<Sandbox>, mut stream: UnixStream) -> std::io::Result<()> {
    let (line, streams) = receive(&stream)?;
    let reply = match serde_json::from_str::<Ask>(&line) {
        Err(e) => Err(e.to_string()),
        Ok(Ask::Exec { host, argv }) => exec(sandbox, &host, &argv, streams, &stream),
        Ok(Ask::Inspect) => crate::inspect::inspect(sandbox).map_err(|e| format!("{e:#}")),
        Ok(Ask::Verify { cut_off, host }) => {
            crate::verify::verify(sandbox, &cut_off, host.as_deref()).map_err(|e| format!("{e:#}"))
        }
        Ok(Ask::Snapshot { host, exclude_data, exclude, description }) => {
            crate::backup_tool::snapshot(sandbox, host.as_deref(), exclude_data, &exclude, description.as_deref())
                .map_err(|e| format!("{e:#}"))
        }
        Ok(Ask::Function { name, event, setup }) => {
            let runtime = tokio::runtime::Handle::current();
            let outcome = runtime.block_on(sandbox.functions.once(sandbox, setup, &name, event));
            outcome.map(|outcome| outcome.json()).map_err(|e| format!("{e:#}"))
        }
        Ok(Ask::Tick { setup }) => {
            let runtime = tokio::runtime::Handle::current();
            runtime
                .block_on(async {
                    sandbox.functions.settled().await;
                    sandbox.functions.tick(sandbox, setup).await
                })
                .map_err(|e| format!("{e:#}"))
        }
        Ok(Ask::Fault { name, args }) => crate::fault::apply(sandbox, &name, &args).map(Value::from),
        Ok(Ask::Assume { role }) => crate::functions::assume(sandbox, &role).map_err(|e| format!("{e:#}")),
        Ok(Ask::Settle { within_secs }) => {
            let started = std::time::Instant::now();
            loop {
                let commands = {
                    let world = sandbox.cloud.world();
                    world.regions().any(|r| world.region(r).is_some_and(|r| r.ssm.is_busy()))
                };
                let events = sandbox.functions.under_way();
                if !commands && events == 0 {
                    break Ok(json!({"settled_after_ms": started.elapsed().as_millis()}));
                }
                if started.elapsed().as_secs() >= within_secs {
                    break Err(format!("still under way: commands {commands}, events on their way to functions {events}"));
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
        Ok(Ask::Clock { advance_secs }) => {
            let moved = sandbox.cloud.clock.advance(std::time::Duration::from_secs(advance_secs));
            // What the time that passed brings with it is there when this is answered.
            sandbox.cloud.world().tick(sandbox.cloud.clock.now());
            sandbox.carry();
            sandbox.cloud.changed.notify_one();
            moved
                .map_err(|e| e.to_string())
                .map(|()| json!({"ahead_secs": sandbox.cloud.clock.ahead().as_secs(), "now": sandbox.cloud.clock.now().iso()}))
        }
    };
    let line = match reply {
        Ok(value) => json!({"ok": value}),
        Err(why) => json!({"error": why}),
    };
    writeln!(stream, "{line}")
}

/// A line, and the descriptors that came with its first part.
fn receive(stream: &UnixStream) -> std::io::Result<(String, Vec<OwnedFd>)> {
    let mut bytes = Vec::new();
    let mut fds = Vec::new();
    let mut space = nix::cmsg_space!([RawFd; 3]);
    while bytes.last() != Some(&b'\n') {
        let mut buffer = [0u8; 65_536];
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = control {
                // SAFETY: the kernel has just made these descriptors for this process, and nothing else knows them.
                fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        let count = message.bytes;
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(&buffer[..count]);
    }
    Ok((String::from_utf8_lossy(&bytes).into_owned(), fds))
}

fn exec(sandbox: &Sandbox, host: &str, argv: &[String], streams: Vec<OwnedFd>, client: &UnixStream) -> Result<Value, String> {
    let host = sandbox.host(host).map_err(|e| e.to_string())?;
    let args = host.namespace.exec_args(argv, None).map_err(|e| e.to_string())?;
    let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(streams) else {
        return Err("the streams did not arrive".to_owned());
    };
    let mut child = Command::new(host.namespace.program())
        .args(args)
        .env_clear()
        .env("PATH", crate::host::PATH)
        .env("LANG", "C.UTF-8")
        .env("TERM", "dumb")
        .env("HOME", "/root")
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr))
        .spawn()
        .map_err(|e| e.to_string())?;
    // A client that goes away takes its command along.
    let pid = child.id();
    if let Ok(mut watched) = client.try_clone() {
        std::thread::spawn(move || {
            let mut byte = [0u8; 1];
            if matches!(watched.read(&mut byte), Ok(0) | Err(_)) {
                crate::agent::terminate(pid);
            }
        });
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    let _ = client.shutdown(std::net::Shutdown::Read);
    Ok(json!({"code": status.code().unwrap_or(137)}))
}
