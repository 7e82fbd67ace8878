//! One core's TCP: joins wire, flow, proto and an application. It writes what is to be sent into an [`Outbox`].

mod application;
mod burst;
mod chain;
mod connection;
mod control;
mod core;
mod deadlines;
mod lifecycle;
mod outbox;
mod paths;
mod receive;
mod records;
mod send;
mod stop;
#[cfg(test)]
mod tests;
mod view;
mod waiting;
mod work;

pub use self::core::{Config, Endpoint, MAX_CONNECTIONS, Settings, memory_needed};
pub use application::{Application, Id, Listener, Listeners, Open, OpenError, Order, Varies};
pub use outbox::Outbox;
pub use view::{Lookup, View, Viewer};
