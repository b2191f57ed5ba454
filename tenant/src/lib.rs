//! Who may use how much, and running their SQL.

mod statement;

pub use statement::{
    Argument, Arguments, Column, Description, Executed, Gone, JobHost, Row, RowSink, SqlStream,
    StatementError, StreamError, Ticket, ValueRef,
};
