//! `mufakat session …`: one verb for each operation on sessions.

use std::fmt::Write;

use clap::{Args, Subcommand};

use crate::cli::lock::lines::{length, more};
use crate::cli::lock::{PageArgs, meta};
use crate::cli::{Connection, Failure, length_ms};
use crate::client::Target;
use crate::protocol::meta::Meta;
use crate::protocol::session::{Closed, Listing, One, Open, Opened, View};

#[derive(Args)]
pub(super) struct SessionArgs {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    command: SessionCommand,
}

#[derive(Subcommand)]
enum SessionCommand {
    Open(OpenArgs),
    Keepalive(KeepaliveArgs),
    Close(CloseArgs),
    Get(GetArgs),
    #[command(visible_alias = "list")]
    Ls(LsArgs),
}

/// Open a session and print its id
///
/// The session expires unless it is kept alive.
///
/// Examples:
///   mufakat session open --ttl 1m
///   mufakat session open --ttl 10s --name worker-7 --lock-delay 5s
#[derive(Args)]
#[command(verbatim_doc_comment)]
struct OpenArgs {
    /// How long the session lives unless it is kept alive, 1s to 1day.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = length_ms)]
    ttl: u64,
    /// Name to show to people.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How long locks stay blocked after the session expires, at most 10m.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = length_ms)]
    lock_delay: u64,
    /// JSON object of at most 1 KiB, shown to everyone who inspects the session.
    #[arg(long, value_name = "JSON", value_parser = meta)]
    meta: Option<Meta>,
}

/// Keep a session alive: its time to live starts again
///
/// Examples:
///   mufakat session keepalive 3f7a
#[derive(Args)]
#[command(verbatim_doc_comment)]
struct KeepaliveArgs {
    /// Id that `session open` printed.
    #[arg(
        value_name = "SESSION",
        env = "MUFAKAT_SESSION",
        hide_env_values = true
    )]
    session: String,
}

/// Close a session, and end everything it holds and waits for
///
/// Examples:
///   mufakat session close 3f7a
#[derive(Args)]
#[command(verbatim_doc_comment)]
struct CloseArgs {
    /// Id that `session open` printed.
    #[arg(
        value_name = "SESSION",
        env = "MUFAKAT_SESSION",
        hide_env_values = true
    )]
    session: String,
}

/// Show what a session holds and waits for
///
/// Examples:
///   mufakat session get 3f7a
#[derive(Args)]
#[command(verbatim_doc_comment)]
struct GetArgs {
    /// Id that `session open` printed.
    #[arg(
        value_name = "SESSION",
        env = "MUFAKAT_SESSION",
        hide_env_values = true
    )]
    session: String,
}

/// List sessions by id
///
/// Examples:
///   mufakat session ls
///   mufakat session ls --limit 1000 --json
#[derive(Args)]
#[command(verbatim_doc_comment)]
struct LsArgs {
    #[command(flatten)]
    page: PageArgs,
}

pub(super) async fn run(args: &SessionArgs) -> Result<(), Failure> {
    let connection = &args.connection;
    let client = connection.client(Target::Any).await?;
    match &args.command {
        SessionCommand::Open(args) => {
            let open = Open {
                name: args.name.clone(),
                lock_delay_ms: args.lock_delay,
                meta: args.meta.clone(),
                ..Open::new(args.ttl)
            };
            connection.print(&client.session_open(&open).await?, opened)
        }
        SessionCommand::Keepalive(args) => {
            let kept = client.session_keepalive(&One::new(&args.session)).await?;
            connection.print(&kept, |kept| {
                format!("kept alive, expires in {}", length(kept.expires_in_ms))
            })
        }
        SessionCommand::Close(args) => {
            let ended = client.session_close(&One::new(&args.session)).await?;
            connection.print(&ended, closed)
        }
        SessionCommand::Get(args) => {
            let found = client.session_get(&One::new(&args.session)).await?;
            connection.print(&found, view)
        }
        SessionCommand::Ls(args) => {
            let found = client.session_list(&args.page.request()).await?;
            connection.print(&found, listing)
        }
    }
}

fn opened(opened: &Opened) -> String {
    let (ttl, keepalive) = (length(opened.ttl_ms), length(opened.keepalive_ms));
    let session = &opened.session;
    format!("{session}: expires in {ttl} unless kept alive; keep it alive every {keepalive}")
}

pub(super) fn closed(closed: &Closed) -> String {
    let mut lines = format!("closed, {} locks released\n", closed.released_count);
    for released in &closed.released {
        // Writing into a string cannot fail.
        let _ = writeln!(lines, "{}, token {}", released.resource, released.token);
    }
    if closed.truncated {
        lines += "… and more\n";
    }
    lines
}

fn view(view: &View) -> String {
    let mut lines = String::new();
    let _ = writeln!(
        lines,
        "{}{}: open for {}, expires in {}, holds {}, waits for {}",
        view.session,
        named(view.name.as_deref()),
        length(view.open_ms),
        length(view.expires_in_ms),
        view.held,
        view.waiting
    );
    for hold in &view.holds {
        let _ = writeln!(
            lines,
            "  {} ({}), owner {}, token {}, for {}, expires in {}",
            hold.resource,
            hold.mode.name(),
            hold.owner,
            hold.token,
            length(hold.held_ms),
            length(hold.expires_in_ms)
        );
    }
    for wait in &view.waits {
        let (mode, waited) = (wait.mode.name(), length(wait.waited_ms));
        let _ = writeln!(
            lines,
            "  {} waits for {} ({mode}), for {waited}",
            wait.owner, wait.resource
        );
    }
    lines
}

fn listing(listing: &Listing) -> String {
    let mut lines = String::new();
    for session in &listing.sessions {
        let _ = writeln!(
            lines,
            "{}{}: expires in {}, holds {}, waits for {}",
            session.session,
            named(session.name.as_deref()),
            length(session.expires_in_ms),
            session.held,
            session.waiting
        );
    }
    if listing.sessions.is_empty() {
        lines.push_str("no sessions\n");
    }
    more(&mut lines, listing.cursor.as_deref());
    lines
}

fn named(name: Option<&str>) -> String {
    name.map(|name| format!(" ({name})")).unwrap_or_default()
}
