//! Replies of the lock service as text for people.

use std::fmt::Write;

use super::graph::because;
use crate::client::ClientError;
use crate::protocol::lock::{Acquired, Cancelled, Checked, Holder, Listing, Mode, View};

/// The details of an error beside its message, one per line.
pub(in crate::cli) fn details(error: &ClientError) -> Vec<String> {
    let Some(error) = error.details() else {
        return Vec::new();
    };
    let mut lines: Vec<String> = error.holders.iter().flatten().map(holder).collect();
    match error.queue_length {
        None | Some(0) => {}
        Some(length) => lines.push(format!("{length} waiting")),
    }
    if let Some(delay_ms) = error.delay_ms {
        lines.push(delayed(delay_ms));
    }
    for edge in &error.cycle {
        lines.push(format!(
            "{} waits for {}, {} {}",
            edge.owner,
            edge.waits_for_owner,
            because(edge.because),
            edge.resource
        ));
    }
    lines
}

fn delayed(delay_ms: u64) -> String {
    let delay = length(delay_ms);
    format!("the holder's session expired: nobody gets the lock for another {delay}")
}

pub(super) fn acquired(acquired: &Acquired) -> String {
    let sole = acquired
        .mode
        .map(|mode| (&acquired.resource, mode, acquired.permits));
    let several = acquired
        .resources
        .iter()
        .map(|held| (&held.resource, held.mode, held.permits));
    let held: Vec<String> = sole
        .into_iter()
        .chain(several)
        .map(|(resource, mode, permits)| format!("{resource} {}", in_mode(mode, permits)))
        .collect();
    format!(
        "{}: token {}, owner {}, expires in {}, waited {}",
        held.join(", "),
        acquired.token,
        acquired.owner,
        length(acquired.expires_in_ms),
        length(acquired.waited_ms)
    )
}

fn in_mode(mode: Mode, permits: Option<u32>) -> String {
    match permits {
        Some(permits) => format!("{} of {permits}", mode.name()),
        None => mode.name().to_owned(),
    }
}

pub(super) fn checked(checked: &Checked) -> String {
    match (checked.expires_in_ms, checked.current_token) {
        (Some(left), _) if checked.valid => format!("valid, expires in {}", length(left)),
        (_, Some(current)) => format!("not valid, the current token is {current}"),
        (_, None) => "not valid, nobody holds the lock".to_owned(),
    }
}

pub(super) fn cancelled(cancelled: &Cancelled) -> String {
    match (cancelled.cancelled, cancelled.token) {
        (true, _) => "cancelled".to_owned(),
        (false, Some(token)) => {
            format!("not cancelled: the request was already granted, with token {token}")
        }
        (false, None) => "not cancelled: no such request is waiting".to_owned(),
    }
}

pub(super) fn view(view: &View) -> String {
    let mut lines = String::new();
    // Writing into a string cannot fail.
    if let Some(delay_ms) = view.delay_ms {
        let _ = writeln!(lines, "{}", delayed(delay_ms));
    } else if view.holders.is_empty() {
        lines.push_str("free\n");
    }
    for held in &view.holders {
        lines.push_str(&holder(held));
        lines.push('\n');
    }
    if let Some(held) = view.held {
        let _ = writeln!(lines, "… {held} holders in all");
    }
    for waiter in &view.waiters {
        let waited = length(waiter.waited_ms);
        let mode = in_mode(waiter.mode, waiter.permits);
        let _ = writeln!(lines, "{} waits ({mode}), for {waited}", waiter.owner);
    }
    if let Some(waiting) = view.waiting {
        let _ = writeln!(lines, "… {waiting} waiters in all");
    }
    lines
}

pub(in crate::cli) fn holder(holder: &Holder) -> String {
    let session = match &holder.session {
        Some(session) => format!(", session {session}"),
        None => String::new(),
    };
    let meta = match &holder.meta {
        Some(meta) => format!(", {}", meta.as_json()),
        None => String::new(),
    };
    format!(
        "held by {} ({}), token {}, for {}, expires in {}{session}{meta}",
        holder.owner,
        in_mode(holder.mode, holder.permits),
        holder.token,
        length(holder.held_ms),
        length(holder.expires_in_ms)
    )
}

pub(super) fn listing(listing: &Listing) -> String {
    let mut lines = String::new();
    for lock in &listing.locks {
        lines.push_str(&lock.resource);
        if let (Some(owner), Some(mode)) = (&lock.owner, lock.mode) {
            let _ = write!(lines, ": held by {owner} ({})", mode.name());
        }
        if lock.held > 1 {
            let _ = write!(lines, " and {} more", lock.held - 1);
        }
        if let Some(token) = lock.token {
            let _ = write!(lines, ", token {token}");
        }
        if let Some(left) = lock.expires_in_ms {
            let _ = write!(lines, ", expires in {}", length(left));
        }
        if lock.waiting > 0 {
            let _ = write!(lines, ", {} waiting", lock.waiting);
        }
        lines.push('\n');
    }
    if listing.locks.is_empty() {
        lines.push_str("no locks\n");
    }
    more(&mut lines, listing.cursor.as_deref());
    lines
}

/// Adds how to get the next page, if there is one.
pub(in crate::cli) fn more(lines: &mut String, cursor: Option<&str>) {
    if let Some(cursor) = cursor {
        let _ = writeln!(lines, "… more with --cursor '{cursor}'");
    }
}

pub(in crate::cli) fn length(ms: u64) -> humantime::FormattedDuration {
    humantime::format_duration(std::time::Duration::from_millis(ms))
}
