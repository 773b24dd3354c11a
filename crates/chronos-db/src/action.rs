//! Actions: builders of operations that run when they are awaited.

use crate::Result;

/// An operation with everything it was given. (Public, and not to be named from outside: what it gives is.)
pub trait Action: Sized + Send + 'static {
    type Output: Send;

    /// Carries it out.
    fn run(self) -> impl Future<Output = Result<Self::Output>> + Send;
}

/// Lets an [`Action`] be awaited.
macro_rules! awaitable {
    ($action:ty) => {
        impl std::future::IntoFuture for $action {
            type Output = $crate::Result<<$action as $crate::action::Action>::Output>;
            type IntoFuture = futures::future::BoxFuture<'static, Self::Output>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin($crate::action::Action::run(self))
            }
        }
    };
}
