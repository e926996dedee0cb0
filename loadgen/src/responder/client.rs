//! The echo as a subscription of the NATS client library.

use anyhow::{Context, Result};
use futures_util::StreamExt;
use mufakat::broker::options::NatsOptions;
use tokio::sync::oneshot;

/// Requests and replies on their way inside the client: more than any run keeps under way, so that none is
/// dropped as for a slow consumer.
const MESSAGES_WAITING_MAX: usize = 65_536;

/// Subscribes, tells that it is ready and answers until told to stop.
pub async fn answer(
    nats: &NatsOptions,
    subject: &str,
    ready: oneshot::Sender<()>,
    stopped: oneshot::Receiver<()>,
) -> Result<()> {
    let resolved = nats.resolve()?;
    let client = resolved
        .options
        .name("loadgen echo")
        .subscription_capacity(MESSAGES_WAITING_MAX)
        .client_capacity(MESSAGES_WAITING_MAX)
        .skip_subject_validation(true)
        .connect(resolved.servers)
        .await
        .context("the echo responder cannot connect")?;
    let mut requests = client.subscribe(subject.to_owned()).await?;
    client.flush().await?;
    let _ = ready.send(());
    // A task of its own is polled by the runtime alone, not through the select of the caller.
    let answers = tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let Some(reply) = request.reply else { continue };
            if client.publish(reply, request.payload).await.is_err() {
                return;
            }
        }
    });
    let _ = stopped.await;
    answers.abort();
    Ok(())
}
