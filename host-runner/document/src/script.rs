//! The script of the document's last step.
//!
//! Every file is checked against a digest that stands in this text, then copied beside its place, flushed and renamed:
//! two commands at once, or one that is killed, leave either the old file or the new one. The working directory is
//! the command's own download directory (`A§1.8`), so that no other command's files are taken for ours. The agent keeps that
//! directory for weeks, and a host is asked many times a day: what was downloaded goes as soon as it has been compared.

use crate::{Artefact, CLIENT_DIR, DocumentSource, RUNNER_DIR};

pub(crate) fn lines(source: &DocumentSource) -> Vec<String> {
    let mut out: Vec<String> = PROLOGUE.lines().map(str::to_owned).collect();
    let made_from = serde_json::to_string(source).expect("a document's source is plain data");
    out.push(format!("{MADE_FROM}{made_from}"));
    out.push(install(RUNNER_DIR, &source.runner, "/opt/tde2hsm/host-runner", "0755"));
    // The directory is there only when the client's download steps ran. Were a file of it missing, `put` would fail.
    out.push(format!("if [ -d {CLIENT_DIR} ]; then"));
    out.push("  install -d -m 0755 -o root -g root /opt/tde2hsm/packages".to_owned());
    for artefact in source.packages.iter().map(|package| &package.artefact).chain(&source.ca) {
        let place = format!("/opt/tde2hsm/packages/{}", artefact.file);
        out.push(format!("  {}", install(CLIENT_DIR, artefact, &place, "0644")));
    }
    // The manifest comes last: whoever finds a file named in it finds the file.
    out.push("  t=$(mktemp /opt/tde2hsm/packages/.manifest.XXXXXX)".to_owned());
    out.push(format!("  printf '%s\\n' '{}' > \"$t\"", source.manifest()));
    out.push("  chmod 0644 \"$t\"; sync \"$t\"; mv -f \"$t\" /opt/tde2hsm/packages/manifest.json".to_owned());
    out.push("fi".to_owned());
    out.push("exec /opt/tde2hsm/host-runner run".to_owned());
    out
}

/// The comment from which a document's source is read back.
pub(crate) const MADE_FROM: &str = "# made from ";

fn install(from: &str, artefact: &Artefact, to: &str, mode: &str) -> String {
    format!("put {from}/{} {} {to} {mode}", artefact.file, artefact.sha256)
}

const PROLOGUE: &str = r#"#!/bin/bash
set -Eeuo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
umask 022
fail() { echo "tde2hsm: $1"; exit 1; }
trap 'echo "tde2hsm: the script failed in line $LINENO"; exit 1' ERR
[ "$(id -u)" = 0 ] || fail "not run as root"
put() {
  if [ -f "$3" ] && [ ! -L "$3" ] && [ "$(stat -c %a:%u "$3")" = "${4#0}:0" ] && echo "$2  $3" | sha256sum -c --status 2>/dev/null; then rm -f "$1"; return 0; fi
  [ -f "$1" ] || fail "$1 was not downloaded"
  t=$(mktemp "${3%/*}/.${3##*/}.XXXXXX")
  cat "$1" > "$t"
  if ! echo "$2  $t" | sha256sum -c --status 2>/dev/null; then rm -f "$t"; fail "$1 does not have the digest that the document names"; fi
  chmod "$4" "$t"; chown root:root "$t"; sync "$t"; mv -f "$t" "$3"
  rm -f "$1"
}
install -d -m 0755 -o root -g root /opt/tde2hsm"#;

/// What takes the runner off a host again. The journal and the backups below `/var/lib/tde2hsm` stay: while old keys
/// may be needed, so may they.
pub(crate) const REMOVE: &str = r#"#!/bin/bash
set -Eeuo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
trap 'echo "tde2hsm: the script failed in line $LINENO"; exit 1' ERR
rm -rf /opt/tde2hsm/packages
rm -f /opt/tde2hsm/host-runner
if [ -d /opt/tde2hsm ]; then rmdir --ignore-fail-on-non-empty /opt/tde2hsm; fi
echo "tde2hsm: removed""#;
