//! Invalid input of the user or of a broker leads to an error of the right kind that says what is
//! wrong, without a panic, a hang, or the loss of other records. The tests use only the public
//! interface.

mod arguments;
mod closed;
mod common;
mod damage;
mod dropped;
mod garbage;
mod nobody;
mod sizes;
mod strangers;
