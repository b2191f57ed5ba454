//! The steps: what each tenant does, in order.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use libsql::{Connection, TransactionBehavior, Value, params};

use crate::values::Labelled;
use crate::{Failure, Outcome, Tenant, connect, equal, fails};

type Values = Rc<Vec<Labelled>>;
type Work = fn(Rc<Tenant>, Values) -> Pin<Box<dyn Future<Output = Outcome>>>;

/// Name and work of each step.
pub const STEPS: &[(&str, Work)] = &[
    ("schema", |tenant, _| Box::pin(schema(tenant))),
    ("values", |tenant, values| Box::pin(one_by_one(tenant, values))),
    ("batch", |tenant, values| Box::pin(batch(tenant, values))),
    ("batch rolls back", |tenant, _| Box::pin(batch_rolls_back(tenant))),
    ("transaction commits", |tenant, _| Box::pin(commits(tenant))),
    ("transaction rolls back", |tenant, _| Box::pin(rolls_back(tenant))),
    ("transaction abandoned", |tenant, _| Box::pin(abandoned(tenant))),
    ("errors", |tenant, _| Box::pin(errors(tenant))),
    ("isolation", |tenant, _| Box::pin(isolation(tenant))),
];

async fn texts(connection: &Connection, sql: &str) -> Result<Vec<String>, Failure> {
    let mut rows = connection.query(sql, ()).await?;
    let mut texts = Vec::new();
    while let Some(row) = rows.next().await? {
        texts.push(row.get(0)?);
    }
    Ok(texts)
}

async fn names(connection: &Connection) -> Result<Vec<String>, Failure> {
    texts(connection, "SELECT name FROM people ORDER BY id").await
}

async fn number(connection: &Connection, sql: &str) -> Result<i64, Failure> {
    let row = connection.query(sql, ()).await?.next().await?;
    Ok(row.ok_or("a row was expected")?.get(0)?)
}

async fn schema(tenant: Rc<Tenant>) -> Outcome {
    let connection = &tenant.connection;
    connection
        .execute_batch(
            "CREATE TABLE owner(name TEXT NOT NULL);
             CREATE TABLE kinds(id INTEGER PRIMARY KEY, label TEXT NOT NULL, value);
             CREATE TABLE people(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
             CREATE TABLE pets(id INTEGER PRIMARY KEY,
                               owner INTEGER NOT NULL REFERENCES people(id));",
        )
        .await?;
    let sql = "INSERT INTO owner VALUES (?)";
    equal(connection.execute(sql, params![tenant.name.as_str()]).await?, 1)?;
    equal(connection.last_insert_rowid(), 1)
}

async fn check(connection: &Connection, values: &[Labelled]) -> Outcome {
    let sql = "SELECT label, typeof(value), value FROM kinds ORDER BY id";
    let mut rows = connection.query(sql, ()).await?;
    for Labelled { label, kind, value } in values {
        let row = rows.next().await?.ok_or("too few rows")?;
        equal(&row.get::<String>(0)?, label)?;
        equal(row.get::<String>(1)?.as_str(), kind).map_err(|e| format!("{label}: {e}"))?;
        equal(&row.get_value(2)?, value).map_err(|e| format!("{label}: {e}"))?;
    }
    equal(rows.next().await?.is_none(), true)
}

async fn one_by_one(tenant: Rc<Tenant>, values: Values) -> Outcome {
    let sql = "INSERT INTO kinds(label, value) VALUES (:label, $value)";
    for Labelled { label, value, .. } in values.iter() {
        let named = [(":label", Value::Text(label.clone())), ("$value", value.clone())];
        equal(tenant.connection.execute(sql, named).await?, 1)?;
    }
    check(&tenant.connection, &values).await
}

async fn batch(tenant: Rc<Tenant>, values: Values) -> Outcome {
    let transaction = tenant.database.connect()?.transaction().await?;
    transaction.execute("DELETE FROM kinds", ()).await?;
    let insert =
        transaction.prepare("INSERT INTO kinds(label, value) VALUES (?1, ?2)").await?;
    for Labelled { label, value, .. } in values.iter() {
        insert.execute(params![label.as_str(), value.clone()]).await?;
        insert.reset();
    }
    check(&transaction, &values).await?;
    transaction.commit().await?;
    check(&tenant.connection, &values).await?;
    let batch = "UPDATE kinds SET label = label; DELETE FROM kinds WHERE id < 0; SELECT 1";
    tenant.connection.execute_transactional_batch(batch).await?;
    Ok(())
}

async fn batch_rolls_back(tenant: Rc<Tenant>) -> Outcome {
    let twice = "INSERT INTO people(name) VALUES ('first');
                 INSERT INTO people(name) VALUES ('first');";
    let result = tenant.connection.execute_transactional_batch(twice).await;
    // A batch's error has no code in this client.
    fails(result, "", "UNIQUE constraint failed: people.name")?;
    equal(names(&tenant.connection).await?, Vec::new())
}

async fn commits(tenant: Rc<Tenant>) -> Outcome {
    let behavior = TransactionBehavior::Immediate;
    let transaction = tenant.database.connect()?.transaction_with_behavior(behavior).await?;
    let sql = "INSERT INTO people(name) VALUES (?1)";
    equal(transaction.execute(sql, ["committed"]).await?, 1)?;
    equal(names(&tenant.connection).await?, Vec::new())?;
    transaction.execute("INSERT INTO pets(owner) SELECT id FROM people", ()).await?;
    equal(names(&transaction).await?, vec!["committed".to_owned()])?;
    transaction.commit().await?;
    equal(names(&tenant.connection).await?, vec!["committed".to_owned()])
}

async fn rolls_back(tenant: Rc<Tenant>) -> Outcome {
    let transaction = tenant.database.connect()?.transaction().await?;
    transaction.execute("DELETE FROM pets", ()).await?;
    let null = transaction.execute("INSERT INTO people(name) VALUES (?)", [Value::Null]).await;
    fails(null, "SQLITE_CONSTRAINT", "NOT NULL")?;
    transaction.execute("INSERT INTO people(name) VALUES ('rolled back')", ()).await?;
    transaction.rollback().await?;
    let dropped = tenant.database.connect()?.transaction().await?;
    dropped.execute("INSERT INTO people(name) VALUES ('dropped')", ()).await?;
    drop(dropped);
    equal(names(&tenant.connection).await?, vec!["committed".to_owned()])?;
    equal(number(&tenant.connection, "SELECT count(*) FROM pets").await?, 1)
}

async fn abandoned(tenant: Rc<Tenant>) -> Outcome {
    let abandoned = tenant.database.connect()?;
    abandoned.execute("BEGIN IMMEDIATE", ()).await?;
    abandoned.execute("INSERT INTO people(name) VALUES ('abandoned')", ()).await?;
    // The next writer gets the lock without help from the one that forgot it.
    tenant.connection.execute("INSERT INTO people(name) VALUES ('next')", ()).await?;
    let expected = vec!["committed".to_owned(), "next".to_owned()];
    equal(names(&tenant.connection).await?, expected)?;
    let late = abandoned.execute("DELETE FROM people", ()).await;
    fails(late, "TRANSACTION_TIMEOUT", "timed out")
}

async fn errors(tenant: Rc<Tenant>) -> Outcome {
    let cases = [
        ("INSERT INTO people(name) VALUES ('next')", "SQLITE_CONSTRAINT", "UNIQUE"),
        ("INSERT INTO pets(owner) VALUES (99)", "SQLITE_CONSTRAINT", "FOREIGN KEY"),
        ("SELECT * FROM absent", "SQLITE_UNKNOWN", "no such table: absent"),
        ("SELECT absent", "SQL_INPUT_ERROR", "no such column: absent"),
        ("SELECT abs()", "SQL", "wrong number of arguments"),
    ];
    for (sql, code, words) in cases {
        fails(tenant.connection.execute(sql, ()).await, code, words)?;
    }
    let missing = tenant.connection.execute("DELETE FROM people WHERE id IN (?, ?)", [1]).await;
    fails(missing, "ARGS_INVALID", "parameter")?;
    for by_header in [false, true] {
        let absent = connect(&format!("{}-absent", tenant.name), by_header).await?;
        let result = absent.connect()?.execute("SELECT 1", ()).await;
        fails(result, "status=404", "absent")?;
    }
    let expected = vec!["committed".to_owned(), "next".to_owned()];
    equal(names(&tenant.connection).await?, expected)
}

async fn isolation(tenant: Rc<Tenant>) -> Outcome {
    let owners = texts(&tenant.connection, "SELECT name FROM owner").await?;
    equal(owners, vec![tenant.name.clone()])
}
