//! The event loop that is needed only by what has to be waited for. Whoever hopes to get by without one polls
//! first, and starts it when that was not enough.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::runtime::Handle;

/// Goes on once it is polled on a Tokio runtime.
///
/// # Errors
/// When it is polled a second time, and there is still none.
pub(super) async fn entered() -> io::Result<()> {
    let mut asked_for = false;
    poll_fn(|context| match Handle::try_current() {
        Ok(_) => Poll::Ready(Ok(())),
        Err(error) if asked_for => Poll::Ready(Err(io::Error::other(error))),
        Err(_) => {
            asked_for = true;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn an_event_loop_is_asked_for_once() {
        let mut context = Context::from_waker(Waker::noop());
        let runtime = Builder::new_current_thread().build().unwrap();

        let mut work = pin!(entered());
        assert!(work.as_mut().poll(&mut context).is_pending());
        runtime.block_on(work).unwrap();
        runtime.block_on(entered()).unwrap();

        let mut work = pin!(entered());
        assert!(work.as_mut().poll(&mut context).is_pending());
        let Poll::Ready(Err(error)) = work.as_mut().poll(&mut context) else { panic!("waits for ever") };
        assert!(error.to_string().contains("Tokio"), "{error}");
    }
}
