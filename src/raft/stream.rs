//! The sending side of a stream of log entries.
//!
//! Up to [`WINDOW`] requests are on their way at once, each with the stream's number and its own
//! sequence. The first thing that goes wrong (a gap, a reset, silence) ends the stream with an error:
//! openraft then opens another, which continues from what the follower is known to have.
//!
//! After silence that other one says nothing either until the follower has answered a heartbeat, but for
//! a probe now and then. Openraft lets its heartbeats rest when no majority answers; entries that went
//! on would keep followers from electing another leader in place of one that hears nobody.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError};
use openraft::network::RPCTypes;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::sync::mpsc;

use super::factory::{Peer, entry_bytes};
use super::frame::{Header, Lane};
use super::message::{Refusal, StreamAnswer};
use super::network::CallError;
use super::pending::{PendingGuard, Replied};
use super::types::TypeConfig;
use crate::time::{Instant, now};

/// Requests on their way at once. A follower flushes in batches, so that more than a few only help
/// over long distances; with 512 KB each, 16 bound what a slow follower costs to 8 MB.
pub(super) const WINDOW: usize = 16;

/// Silence that ends a stream while something is on its way. It exceeds an fsync that hiccups, and
/// is short beside the time a follower may lag behind.
const STALL: Duration = Duration::from_millis(750);

/// How long news of a commit alone waits for entries that can carry it: followers then apply a little
/// later, which nobody waits for. Under load openraft has entries to carry it anyway; this spares the
/// message where the next entry comes just after.
const COMMIT_DELAY: Duration = Duration::from_millis(10);

type Item = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

pub(super) struct OutgoingStream<'s, S> {
    peer: &'s Peer,
    /// None when openraft has nothing more to send.
    input: Option<S>,
    number: u64,
    _registered: PendingGuard,
    answers: mpsc::Receiver<Replied>,
    next_sequence: u64,
    /// The sequences that wait for an answer, oldest first.
    in_flight: VecDeque<u64>,
    /// When the oldest of them was sent or the last progress was made, whichever is later.
    progress: Instant,
    /// When the stream before this one stalled, until there is reason to speak again.
    silent_since: Option<Instant>,
    /// A request without entries that waits for the next one, and until when.
    held: Option<(AppendEntriesRequest<TypeConfig>, Instant)>,
}

/// What one turn of the stream found.
enum Turn<R> {
    Answer(Option<Replied>),
    Request(Option<R>),
    /// What was held has waited long enough.
    Held(R),
    Stalled,
}

impl<'s, S> OutgoingStream<'s, S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    /// A stream of answers, in the order of the requests. An answer stands for the earlier ones whose
    /// own were lost: a follower takes no request without those before it.
    ///
    /// # Errors
    /// When too many questions are open.
    pub fn open(
        peer: &'s Peer,
        input: S,
    ) -> Result<impl Stream<Item = Item> + Send + 's, RPCError<TypeConfig>> {
        /// Each request has one answer; the broker may repeat some.
        const ANSWERS_MAX: usize = 2 * WINDOW;
        let number = peer.network.next_number();
        let (registered, answers) = peer
            .network
            .expect_answers(number, Some(peer.target), ANSWERS_MAX)
            .map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        let opened = OutgoingStream {
            peer,
            input: Some(input),
            number,
            _registered: registered,
            answers,
            next_sequence: 0,
            in_flight: VecDeque::new(),
            progress: now(),
            silent_since: peer.stalled_at.lock().expect("no holder panics").take(),
            held: None,
        };
        Ok(stream::unfold(Some(opened), |state| async move {
            let mut open = state?;
            let item = open.next().await?;
            let goes_on = matches!(item, Ok(Ok(_)));
            Some((item, goes_on.then_some(open)))
        }))
    }

    async fn next(&mut self) -> Option<Item> {
        if let Some(since) = self.silent_since {
            sign_of_life(self.peer, since).await;
            self.silent_since = None;
        }
        loop {
            if self.input.is_none() && self.in_flight.is_empty() && self.held.is_none() {
                return None;
            }
            match self.turn().await {
                Turn::Answer(replied) => {
                    if let Some(item) = self.answered(replied) {
                        return Some(item);
                    }
                }
                Turn::Request(None) => self.input = None,
                // The first request of a stream asks where the follower stands.
                Turn::Request(Some(request))
                    if request.entries.is_empty() && self.next_sequence > 0 =>
                {
                    self.hold(request);
                }
                Turn::Request(Some(request)) | Turn::Held(request) => {
                    // It says all that the one that was held said, and later.
                    self.held = None;
                    if let Err(error) = self.send(&request) {
                        return Some(Err(self.failed(error)));
                    }
                }
                Turn::Stalled => {
                    *self.peer.stalled_at.lock().expect("no holder panics") = Some(now());
                    return Some(Err(self.failed(CallError::Timeout)));
                }
            }
        }
    }

    async fn turn(&mut self) -> Turn<AppendEntriesRequest<TypeConfig>> {
        let waiting = !self.in_flight.is_empty();
        let room = self.in_flight.len() < WINDOW;
        let input = async {
            match &mut self.input {
                Some(input) if room => input.next().await,
                _ => std::future::pending().await,
            }
        };
        let held_until = self.held.as_ref().map(|(_, until)| *until);
        let held_long_enough = async {
            match held_until {
                Some(until) if room => tokio::time::sleep_until(until).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            replied = self.answers.recv() => Turn::Answer(replied),
            request = input => Turn::Request(request),
            () = held_long_enough => {
                let (request, _) = self.held.take().expect("it has a time");
                Turn::Held(request)
            }
            () = tokio::time::sleep_until(self.progress + STALL), if waiting => Turn::Stalled,
        }
    }

    /// The newest request without entries takes the place of the one before, not its time.
    fn hold(&mut self, request: AppendEntriesRequest<TypeConfig>) {
        let until = self
            .held
            .take()
            .map_or_else(|| now() + COMMIT_DELAY, |(_, until)| until);
        self.held = Some((request, until));
    }

    fn send(&mut self, request: &AppendEntriesRequest<TypeConfig>) -> Result<(), CallError> {
        let network = &self.peer.network;
        let target = self.peer.target;
        let header = Header::new(Lane::Append, &network.identity(), target.disk)
            .at(self.number, self.next_sequence);
        network.send(
            target.node,
            &header,
            request,
            entry_bytes(request),
            self.number,
        )?;
        if self.in_flight.is_empty() {
            self.progress = now();
        }
        self.in_flight.push_back(self.next_sequence);
        self.next_sequence += 1;
        Ok(())
    }

    /// The item that an answer makes; none when it is a repetition.
    fn answered(&mut self, replied: Option<Replied>) -> Option<Item> {
        let frame = match replied {
            Some(Replied::Frame(frame)) => frame,
            Some(Replied::NoResponders) | None => {
                return Some(Err(self.failed(CallError::NoResponders)));
            }
        };
        let sequence = frame.header.sequence;
        let oldest = *self.in_flight.front()?;
        if sequence < oldest {
            return None;
        }
        let answer = match frame.body::<Result<StreamAnswer, Refusal>>() {
            Ok(Ok(answer)) => answer,
            Ok(Err(refusal)) => return Some(Err(self.failed(CallError::Refused(refusal)))),
            Err(_) => return Some(Err(self.failed(CallError::BadAnswer))),
        };
        match answer {
            StreamAnswer::Appended(result)
                if sequence < self.next_sequence && (result.is_ok() || sequence == oldest) =>
            {
                self.in_flight.retain(|waiting| *waiting > sequence);
                self.progress = now();
                Some(Ok(result))
            }
            // A conflict whose predecessors' answers were lost says too little about where to go on.
            StreamAnswer::Appended(_) | StreamAnswer::Reset => Some(Err(RPCError::Network(
                NetworkError::from_string("the stream has a gap"),
            ))),
        }
    }

    fn failed(&self, error: CallError) -> RPCError<TypeConfig> {
        self.peer.failed(Err(error), RPCTypes::AppendEntries, STALL)
    }
}

/// Waits until a follower that was silent has answered a heartbeat, or it is time for a probe.
async fn sign_of_life(peer: &Peer, since: Instant) {
    let beat = peer.network.shared.pulse.after(peer.target.node, since);
    let _ = tokio::time::timeout_at(since + peer.silence, beat).await;
}
