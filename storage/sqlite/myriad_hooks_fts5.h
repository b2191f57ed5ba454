/* The part of myriad_hooks.h for FTS5's loops over its index. Included there; a change here needs a new
** number of MYRIAD_HOOKS too.
**
** A document of a megabyte has up to a million tokens. FTS5 puts them into a hash table (a token that is
** there already costs no allocation, hence no look), sorts the table, writes it, frees it, and goes over all
** of it again for integrity_check, for a prefix, for NEAR and phrases. Within one step of SQLite's virtual
** machine there is no progress handler in these loops. Here they count what they pass, and look at the turn. */

/* As MYRIAD_IS_DECLARED_const and its like above. */
#define MYRIAD_IS_DECLARED_u64 ~, DECLARATION,
#define MYRIAD_IS_DECLARED_int ~, DECLARATION,
#define MYRIAD_IS_DECLARED_Fts5Hash ~, DECLARATION,
#define MYRIAD_IS_DECLARED_Fts5Iter ~, DECLARATION,
#define MYRIAD_IS_DECLARED_Unicode61Tokenizer ~, DECLARATION,

/* An argument that begins with a parenthesis, which no declaration does, has no word to tell it by. */
#define MYRIAD_PARENTHESIS(...) ~, CALL,
#define MYRIAD_KIND(argument) \
  MYRIAD_JOIN(MYRIAD_KIND_, MYRIAD_CHOOSE(MYRIAD_PARENTHESIS argument, WORD, ~))(argument)
#define MYRIAD_KIND_CALL(argument) CALL
#define MYRIAD_KIND_WORD(argument) MYRIAD_CHOOSE(MYRIAD_IS_DECLARED_##argument, CALL, ~)

/* Work of some 64 ns was done `count` times: a look for each 2,048, as for LIKE. */
static void myriad_pass(unsigned long count) {
  if ((myriad_passed += 64 * count) >= 131072) {
    myriad_passed = 0;
    myriad_is_interrupted();
  }
}

/* A number is written to a list of positions, to a page, or to a list of rows that a prefix brings together. */
#define MYRIAD_PUT_DECLARATION(to, number) (sqlite3Fts5PutVarint)(to, number)
#define MYRIAD_PUT_CALL(to, number) (sqlite3Fts5PutVarint)((myriad_pass(1), (to)), number)
#define sqlite3Fts5PutVarint(to, number) \
  MYRIAD_JOIN(MYRIAD_PUT_, MYRIAD_KIND(number))(to, number)

/* The next position of a list: phrases, NEAR, prefixes, integrity_check. */
#define MYRIAD_POSITION_DECLARATION(list, bytes, at, position) \
  (sqlite3Fts5PoslistNext64)(list, bytes, at, position)
#define MYRIAD_POSITION_CALL(list, bytes, at, position) \
  (sqlite3Fts5PoslistNext64)((myriad_pass(1), (list)), bytes, at, position)
#define sqlite3Fts5PoslistNext64(list, bytes, at, position) \
  MYRIAD_JOIN(MYRIAD_POSITION_, MYRIAD_KIND(list))(list, bytes, at, position)

/* The next row or term of an index: each step of its iterator calls one of these two. A query that gathers all
** rows of a prefix before it answers ends here, and so does a merge, as where a page of it cannot be read. */
#define MYRIAD_PASSED(iterator)                                                                \
  ({                                                                                           \
    if (myriad_is_over(192) && (iterator)->pIndex->rc == SQLITE_OK)                            \
      (iterator)->pIndex->rc = SQLITE_INTERRUPT;                                               \
    (iterator);                                                                                \
  })
#define MYRIAD_ADVANCE_DECLARATION(iterator, changed, first) \
  (fts5MultiIterAdvanceRowid)(iterator, changed, first)
#define MYRIAD_ADVANCE_CALL(iterator, changed, first) \
  (fts5MultiIterAdvanceRowid)(MYRIAD_PASSED(iterator), changed, first)
#define fts5MultiIterAdvanceRowid(iterator, changed, first) \
  MYRIAD_JOIN(MYRIAD_ADVANCE_, MYRIAD_KIND(iterator))(iterator, changed, first)
#define MYRIAD_AT_END_DECLARATION(iterator) (fts5MultiIterSetEof)(iterator)
#define MYRIAD_AT_END_CALL(iterator) (fts5MultiIterSetEof)(MYRIAD_PASSED(iterator))
#define fts5MultiIterSetEof(iterator) \
  MYRIAD_JOIN(MYRIAD_AT_END_, MYRIAD_KIND(iterator))(iterator)

/* Sorting where which token of a prefix stands: by merging runs. */
#define MYRIAD_RUNS_DECLARATION(left, left_count, right, right_count, to) \
  (fts5TokendataMerge)(left, left_count, right, right_count, to)
#define MYRIAD_RUNS_CALL(left, left_count, right, right_count, to) \
  (myriad_pass(1 + ((left_count) + (right_count)) / 16),           \
   (fts5TokendataMerge)(left, left_count, right, right_count, to))
#define fts5TokendataMerge(left, left_count, right, right_count, to) \
  MYRIAD_JOIN(MYRIAD_RUNS_, MYRIAD_KIND(left_count))(left, left_count, right, right_count, to)

/* A text without a letter has no token, and calls nobody. */
#define MYRIAD_LETTER_DECLARATION(tokenizer, code) (fts5UnicodeIsAlnum)(tokenizer, code)
#define MYRIAD_LETTER_CALL(tokenizer, code) (fts5UnicodeIsAlnum)((myriad_pass(1), (tokenizer)), code)
#define fts5UnicodeIsAlnum(tokenizer, code) \
  MYRIAD_JOIN(MYRIAD_LETTER_, MYRIAD_KIND(tokenizer))(tokenizer, code)

/* A token goes into the hash table, or into the set that integrity_check makes of a document's tokens. Both
** are chained, and their hashes are such that all tokens of a document can be made to meet in one chain: then
** a token costs a walk over all before it, 2 ms for the 60,000th, and a document of 0.9 MB takes 8 s. So it
** can be interrupted here, which ends the statement by the tokenizer's own way to fail. */
#define MYRIAD_TOKENS_PER_LOOK 4
static __thread unsigned myriad_tokens = 0;
#define MYRIAD_TOKEN(name, first, second, third, fourth, fifth, sixth)                         \
  (name)(void *context, int flags, const char *token, int bytes, int begin, int end) {         \
    if (++myriad_tokens % MYRIAD_TOKENS_PER_LOOK == 0 && myriad_is_interrupted())              \
      return SQLITE_INTERRUPT;                                                                 \
    return myriad_##name(context, flags, token, bytes, begin, end);                            \
  }                                                                                            \
  static int myriad_##name(first, second, third, fourth, fifth, sixth)
static int(fts5StorageInsertCallback)(void *, int, const char *, int, int, int);
static int(fts5StorageIntegrityCallback)(void *, int, const char *, int, int, int);
static int myriad_fts5StorageInsertCallback(void *, int, const char *, int, int, int);
static int myriad_fts5StorageIntegrityCallback(void *, int, const char *, int, int, int);
#define fts5StorageInsertCallback(first, second, third, fourth, fifth, sixth) \
  MYRIAD_TOKEN(fts5StorageInsertCallback, first, second, third, fourth, fifth, sixth)
#define fts5StorageIntegrityCallback(first, second, third, fourth, fifth, sixth) \
  MYRIAD_TOKEN(fts5StorageIntegrityCallback, first, second, third, fourth, fifth, sixth)

/* Sorting the hash table by key: 300,000 tokens of a random megabyte took 15 ms in one function. Small tables
** are left to it; larger ones are sorted by our own, which looks. As there, run `n` of `runs` has 2^n entries
** at least, or none. Not interrupted: what this is part of ends soon behind it. */
#define MYRIAD_HASH_ENTRIES_MIN 1024
#define MYRIAD_RUNS 32
#define MYRIAD_SORT_CALL(hash, prefix, bytes, sorted) myriad_sort(hash, prefix, bytes, sorted)
#define MYRIAD_SORT_DECLARATION(hash, prefix, bytes, sorted)                                   \
  (fts5HashEntrySort)(hash, prefix, bytes, sorted);                                            \
  static int myriad_is_behind(Fts5HashEntry *one, Fts5HashEntry *other) {                      \
    int shorter = one->nKey < other->nKey ? one->nKey : other->nKey;                           \
    int order = memcmp(fts5EntryKey(one), fts5EntryKey(other), shorter);                       \
    return order != 0 ? order > 0 : one->nKey > other->nKey;                                   \
  }                                                                                            \
  static Fts5HashEntry *myriad_merged(Fts5HashEntry *one, Fts5HashEntry *other) {              \
    Fts5HashEntry *all = 0, **last = &all;                                                     \
    while (one != 0 && other != 0) {                                                           \
      Fts5HashEntry **next = myriad_is_behind(one, other) ? &other : &one;                     \
      myriad_pass(1);                                                                          \
      *last = *next;                                                                           \
      last = &(*next)->pScanNext;                                                              \
      *next = *last;                                                                           \
    }                                                                                          \
    *last = one != 0 ? one : other;                                                            \
    return all;                                                                                \
  }                                                                                            \
  static int myriad_sort(Fts5Hash *table, const char *key, int length, Fts5HashEntry **first) { \
    Fts5HashEntry *runs[MYRIAD_RUNS] = {0};                                                    \
    int slot, at;                                                                              \
    if (table->nEntry < MYRIAD_HASH_ENTRIES_MIN)                                               \
      return (fts5HashEntrySort)(table, key, length, first);                                   \
    for (slot = 0; slot < table->nSlot; slot++) {                                              \
      Fts5HashEntry *entry;                                                                    \
      for (entry = table->aSlot[slot]; entry != 0; entry = entry->pHashNext) {                 \
        Fts5HashEntry *run = entry;                                                            \
        myriad_pass(1);                                                                        \
        if (key != 0 && (entry->nKey < length || memcmp(fts5EntryKey(entry), key, length) != 0)) \
          continue;                                                                            \
        run->pScanNext = 0;                                                                    \
        for (at = 0; at < MYRIAD_RUNS - 1 && runs[at] != 0; at++) {                            \
          run = myriad_merged(run, runs[at]);                                                  \
          runs[at] = 0;                                                                        \
        }                                                                                      \
        runs[at] = myriad_merged(run, runs[at]);                                               \
      }                                                                                        \
    }                                                                                          \
    for (*first = 0, at = 0; at < MYRIAD_RUNS; at++) *first = myriad_merged(*first, runs[at]); \
    return SQLITE_OK;                                                                          \
  }                                                                                            \
  static int(fts5HashEntrySort)(hash, prefix, bytes, sorted)
#define fts5HashEntrySort(hash, prefix, bytes, sorted) \
  MYRIAD_JOIN(MYRIAD_SORT_, MYRIAD_KIND(hash))(hash, prefix, bytes, sorted)

/* Characters that unicode61 takes for letters, or for none, against its tables: they are kept sorted, by putting
** each into its place, at each opening of the table. 40,000 took 0.6 s in one step; so they are handed over part
** by part. What does not end with a whole character goes on with the next part, but in text that is no UTF-8. */
#define MYRIAD_EXCEPTIONS_PART 64
#define MYRIAD_EXCEPTIONS_CALL(tokenizer, text, kind) myriad_exceptions(tokenizer, text, kind)
#define MYRIAD_EXCEPTIONS_DECLARATION(first, second, third)                                    \
  (fts5UnicodeAddExceptions)(first, second, third);                                            \
  static int myriad_exceptions(Unicode61Tokenizer *tokenizer, const char *text, int kind) {    \
    char part[MYRIAD_EXCEPTIONS_PART + 8];                                                     \
    int result = SQLITE_OK;                                                                    \
    while (*text != 0 && result == SQLITE_OK) {                                                \
      unsigned bytes = 0;                                                                      \
      while (text[bytes] != 0 && bytes < sizeof(part) - 1                                      \
             && (bytes < MYRIAD_EXCEPTIONS_PART || (text[bytes] & 0xc0) == 0x80)) {            \
        part[bytes] = text[bytes];                                                             \
        bytes++;                                                                               \
      }                                                                                        \
      part[bytes] = 0;                                                                         \
      text += bytes;                                                                           \
      result = myriad_is_interrupted() ? SQLITE_INTERRUPT                                      \
                                       : (fts5UnicodeAddExceptions)(tokenizer, part, kind);    \
    }                                                                                          \
    return result;                                                                             \
  }                                                                                            \
  static int(fts5UnicodeAddExceptions)(first, second, third)
#define fts5UnicodeAddExceptions(tokenizer, text, kind) \
  MYRIAD_JOIN(MYRIAD_EXCEPTIONS_, MYRIAD_KIND(tokenizer))(tokenizer, text, kind)

/* A table whose content is another one's, whose content is another one's, …: each query of one is inside of a
** step of the one before, and where their statements are compiled already nobody else asks how deep that is. 275
** of them ended the process. */
static int(fts5FilterMethod)(sqlite3_vtab_cursor *, int, const char *, int, sqlite3_value **);
static int myriad_filter(sqlite3_vtab_cursor *, int, const char *, int, sqlite3_value **);
#define fts5FilterMethod(first, second, third, fourth, fifth)                                  \
  (fts5FilterMethod)(sqlite3_vtab_cursor *cursor, int plan, const char *text, int count,       \
                     sqlite3_value **values) {                                                 \
    if (myriad_is_deep()) {                                                                    \
      sqlite3_free(cursor->pVtab->zErrMsg);                                                    \
      cursor->pVtab->zErrMsg = sqlite3_mprintf("fts5: content tables are nested too deeply");  \
      return SQLITE_ERROR;                                                                     \
    }                                                                                          \
    return myriad_filter(cursor, plan, text, count, values);                                   \
  }                                                                                            \
  static int myriad_filter(first, second, third, fourth, fifth)

/* Before a statement that may have to be undone, SQLite asks all tables with changes to write them (xSavepoint). A
** statement that writes to an index's own tables is none of these, unless somebody has made an index on one of them
** or refers to it by a foreign key: then writing asked for writing, without end, and the process ended; and undoing
** it freed the terms that were being written. So while one of a table's own statements writes, nothing of it is
** written, kept or undone in between, and it fails: with words where somebody takes them, for nobody else frees
** them. */
static int(fts5SavepointMethod)(sqlite3_vtab *, int);
static int(fts5ReleaseMethod)(sqlite3_vtab *, int);
static int(fts5RollbackToMethod)(sqlite3_vtab *, int);
static int myriad_savepoint(sqlite3_vtab *, int);
static int myriad_release(sqlite3_vtab *, int);
static int myriad_rollback_to(sqlite3_vtab *, int);
#define fts5SavepointMethod(first, second)                                                     \
  (fts5SavepointMethod)(sqlite3_vtab *table, int savepoint) {                                  \
    if (myriad_is_writing(table)) {                                                            \
      char **message = ((Fts5Table *)table)->pConfig->pzErrmsg;                                \
      if (message != 0 && *message == 0)                                                       \
        *message = sqlite3_mprintf("fts5: a table of the index itself has an index or is "     \
                                   "referred to by a foreign key");                            \
      return SQLITE_ERROR;                                                                     \
    }                                                                                          \
    return myriad_savepoint(table, savepoint);                                                 \
  }                                                                                            \
  static int myriad_savepoint(first, second)
#define fts5ReleaseMethod(first, second)                                                       \
  (fts5ReleaseMethod)(sqlite3_vtab *table, int savepoint) {                                    \
    return myriad_is_writing(table) ? SQLITE_OK : myriad_release(table, savepoint);            \
  }                                                                                            \
  static int myriad_release(first, second)
#define fts5RollbackToMethod(first, second)                                                    \
  (fts5RollbackToMethod)(sqlite3_vtab *table, int savepoint) {                                 \
    return myriad_is_writing(table) ? SQLITE_OK : myriad_rollback_to(table, savepoint);        \
  }                                                                                            \
  static int myriad_rollback_to(first, second)
/* Is defined before the three above, and behind the types. */
#define fts5RenameMethod(first, second)                                                        \
  (fts5RenameMethod)(first, second);                                                           \
  static int myriad_is_writing(sqlite3_vtab *table) {                                          \
    Fts5Index *index = ((Fts5Table *)table)->pIndex;                                           \
    return index != 0                                                                          \
           && (sqlite3_stmt_busy(index->pWriter) || sqlite3_stmt_busy(index->pDeleter)         \
               || sqlite3_stmt_busy(index->pIdxWriter) || sqlite3_stmt_busy(index->pIdxDeleter) \
               || sqlite3_stmt_busy(index->pDeleteFromIdx));                                   \
  }                                                                                            \
  static int(fts5RenameMethod)(first, second)
