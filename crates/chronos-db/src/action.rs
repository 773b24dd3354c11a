//! Actions: builders of operations that run when they are awaited.

use crate::Result;
use crate::telemetry::Observed;

/// An operation with everything it was given. (Public, and not to be named from outside: what it gives is.)
pub trait Action: Sized + Send + 'static {
    type Output: Send;

    /// The operation under which it is measured and logged; none if it is not measured by itself.
    fn observed(&self) -> Option<Observed> {
        None
    }

    /// How many items it was for, if it is for many.
    fn items(_: &Self::Output) -> Option<u64> {
        None
    }

    /// Whether there was nothing to do: what a worker asks for in every round is not news then.
    fn is_idle(_: &Self::Output) -> bool {
        false
    }

    /// Carries it out.
    fn run(self) -> impl Future<Output = Result<Self::Output>> + Send;
}

/// Carries an action out under watch: where every operation passes.
pub(crate) async fn carry_out<A: Action>(action: A) -> Result<A::Output> {
    match action.observed() {
        Some(observed) => observed.watch_action(action.run(), A::items, A::is_idle).await,
        None => action.run().await,
    }
}

/// Lets an [`Action`] be awaited.
macro_rules! awaitable {
    ($action:ty) => {
        impl std::future::IntoFuture for $action {
            type Output = $crate::Result<<$action as $crate::action::Action>::Output>;
            type IntoFuture = futures::future::BoxFuture<'static, Self::Output>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin($crate::action::carry_out(self))
            }
        }
    };
}
