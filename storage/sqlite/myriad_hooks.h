/* Included by SQLite's own source (SQLITE_CUSTOM_INCLUDE, see .cargo/config.toml): gives up the turn
** in loops of SQLite that could run for seconds in one step of its virtual machine, and refuses what
** cannot be left. No text of SQLite changes: each macro stands for a name that is called only in the
** loops meant here, or that is defined once and elsewhere only used as a pointer. A change here needs
** a new number of MYRIAD_HOOKS, or SQLite is not compiled again. */
#if MYRIAD_HOOKS != 13
#error "MYRIAD_HOOKS in .cargo/config.toml and this file are of different versions"
#endif

typedef struct sqlite3_context sqlite3_context;
typedef struct sqlite3_value sqlite3_value;
typedef struct sqlite3_vtab sqlite3_vtab;
typedef struct sqlite3_vtab_cursor sqlite3_vtab_cursor;

/* Gives up the turn if it has ended; not 0: the statement is interrupted. Set at the start. */
int (*myriad_stretch)(void) = 0;

static int myriad_is_interrupted(void) { return myriad_stretch != 0 && myriad_stretch(); }

/* Whether too little of the stack is left to go deeper. Set at the start. */
int (*myriad_depth)(void) = 0;

static int myriad_is_deep(void) { return myriad_depth != 0 && myriad_depth(); }

/* A function was left because its statement is interrupted: what it has answered does not count. */
#define MYRIAD_END_IF_INTERRUPTED(context)                                                     \
  if (myriad_is_interrupted()) {                                                               \
    sqlite3_result_error(context, "interrupted", -1);                                          \
    sqlite3_result_error_code(context, SQLITE_INTERRUPT);                                      \
  }

/* FTS5: snippet() looks at each instance of a phrase once for each of them, highlight() copies its
** output at each. No instance has the number -1: the function ends with an error. */
static __thread unsigned myriad_instances = 0;
#define xInst(fts, instance, phrase, column, offset)                              \
  xInst((fts), ((++myriad_instances & 255) == 0 && myriad_is_interrupted()) ? -1 : (instance), \
        (phrase), (column), (offset))

/* json_patch(): each member of the patch is looked for among all members of the target, so the product
** of their sizes bounds the time: some 10 ms. But what the patch adds is a member of the target from then
** on: 70,000 members on an empty object took 20 s. So there is a look in this loop too, told from that of
** paths by its first argument, which begins with a parenthesis. */
#define MYRIAD_PATCH_PRODUCT_MAX 1000000000LL
static void(jsonPatchFunc)(sqlite3_context *, int, sqlite3_value **);
static void myriad_patch(sqlite3_context *, int, sqlite3_value **);
#define jsonPatchFunc(first, second, third)                                                    \
  (jsonPatchFunc)(sqlite3_context *context, int count, sqlite3_value **values) {               \
    long long product = sqlite3_value_bytes(values[0]);                                        \
    product *= sqlite3_value_bytes(values[1]);                                                 \
    if (product > MYRIAD_PATCH_PRODUCT_MAX)                                                    \
      sqlite3_result_error(context, "json_patch: the sizes of target and patch in bytes, "     \
                                    "multiplied, exceed 1000000000", -1);                      \
    else {                                                                                     \
      myriad_patch(context, count, values);                                                    \
      MYRIAD_END_IF_INTERRUPTED(context)                                                       \
    }                                                                                          \
  }                                                                                            \
  static void myriad_patch(first, second, third)

/* JSON with many paths: each may go over all of the text. Some 10 ms, as for json_patch(). */
#define MYRIAD_PATHS_PRODUCT_MAX 16777216LL
static int myriad_too_many_paths(sqlite3_context *context, int count, sqlite3_value **values) {
  if (count < 3 || (long long)count * sqlite3_value_bytes(values[0]) <= MYRIAD_PATHS_PRODUCT_MAX)
    return 0;
  sqlite3_result_error(context, "the size of the JSON in bytes, multiplied by the number of arguments, "
                                "exceeds 16777216", -1);
  return 1;
}
#define MYRIAD_PATHS(name, first, second, third)                                               \
  (name)(sqlite3_context *context, int count, sqlite3_value **values) {                        \
    if (!myriad_too_many_paths(context, count, values))                                        \
      myriad_##name(context, count, values);                                                   \
  }                                                                                            \
  static void myriad_##name(first, second, third)
static void(jsonExtractFunc)(sqlite3_context *, int, sqlite3_value **);
static void(jsonRemoveFunc)(sqlite3_context *, int, sqlite3_value **);
static void(jsonReplaceFunc)(sqlite3_context *, int, sqlite3_value **);
static void(jsonSetFunc)(sqlite3_context *, int, sqlite3_value **);
static void myriad_jsonExtractFunc(sqlite3_context *, int, sqlite3_value **);
static void myriad_jsonRemoveFunc(sqlite3_context *, int, sqlite3_value **);
static void myriad_jsonReplaceFunc(sqlite3_context *, int, sqlite3_value **);
static void myriad_jsonSetFunc(sqlite3_context *, int, sqlite3_value **);
#define jsonExtractFunc(first, second, third) MYRIAD_PATHS(jsonExtractFunc, first, second, third)
#define jsonRemoveFunc(first, second, third) MYRIAD_PATHS(jsonRemoveFunc, first, second, third)
#define jsonReplaceFunc(first, second, third) MYRIAD_PATHS(jsonReplaceFunc, first, second, third)
#define jsonSetFunc(first, second, third) MYRIAD_PATHS(jsonSetFunc, first, second, third)

/* What follows tells calls of a function from its declarations by the first word of one argument, so that
** only calls are changed: MYRIAD_IS_word(…) is there for the words of one of them. */
#define MYRIAD_SECOND(first, second, ...) second
#define MYRIAD_CHOOSE(...) MYRIAD_SECOND(__VA_ARGS__)
#define MYRIAD_JOIN_(left, right) left##right
#define MYRIAD_JOIN(left, right) MYRIAD_JOIN_(left, right)
#define MYRIAD_IS_DECLARED_const ~, DECLARATION,
#define MYRIAD_IS_DECLARED_Mem ~, DECLARATION,
#define MYRIAD_IS_DECLARED_char ~, DECLARATION,
#define MYRIAD_IS_COPY_MEM_Ephem ~, CALL

/* Code without loops reaches no progress handler, however long its values are: a hundred conversions of a
** text of a megabyte to a number took most of a second, a thousand LIKEs ten. In it each long operand is
** copied, loaded from a parameter, or allocated (which is a look of its own), before something works on
** it: so there the turn is given up. */
#define MYRIAD_LONG_BYTES_MIN 16384
#define myriad_operand(memory) \
  ((((memory)->flags & (MEM_Str | MEM_Blob)) != 0 && (memory)->n >= MYRIAD_LONG_BYTES_MIN      \
        ? (void)myriad_is_interrupted()                                                        \
        : (void)0),                                                                            \
   (memory))
#define MYRIAD_COPY_CALL(to, from, kind) (sqlite3VdbeMemShallowCopy)(to, myriad_operand(from), kind)
#define MYRIAD_COPY_OTHER(to, from, kind) (sqlite3VdbeMemShallowCopy)(to, from, kind)
#define sqlite3VdbeMemShallowCopy(to, from, kind) \
  MYRIAD_JOIN(MYRIAD_COPY_, MYRIAD_CHOOSE(MYRIAD_IS_COPY_##kind, OTHER, ~))(to, from, kind)
#define MYRIAD_BIG_DECLARATION(memory) (sqlite3VdbeMemTooBig)(memory)
#define MYRIAD_BIG_CALL(memory) (sqlite3VdbeMemTooBig)(myriad_operand(memory))
#define sqlite3VdbeMemTooBig(memory) \
  MYRIAD_JOIN(MYRIAD_BIG_, MYRIAD_CHOOSE(MYRIAD_IS_DECLARED_##memory, CALL, ~))(memory)

/* A long column of a row that was loaded before is not copied again, but referred to. */
#define MYRIAD_SHARE_DECLARATION(text) (sqlite3RCStrRef)(text)
#define MYRIAD_SHARE_CALL(text) (sqlite3RCStrRef)(((void)myriad_is_interrupted(), (text)))
#define sqlite3RCStrRef(text) \
  MYRIAD_JOIN(MYRIAD_SHARE_, MYRIAD_CHOOSE(MYRIAD_IS_DECLARED_##text, CALL, ~))(text)

/* LIKE and GLOB look by strcspn() for each place where the text behind a wildcard may begin. */
static __thread unsigned long myriad_passed = 0;
static unsigned long myriad_search(const char *text, const char *stop) {
  unsigned long bytes = __builtin_strcspn(text, stop);
  if ((myriad_passed += bytes + 64) >= 131072) {
    myriad_passed = 0;
    myriad_is_interrupted();
  }
  return bytes;
}
#define MYRIAD_SEARCH_DECLARATION(text, stop) strcspn(text, stop)
#define MYRIAD_SEARCH_CALL(text, stop) myriad_search(text, stop)
#define strcspn(text, stop) \
  MYRIAD_JOIN(MYRIAD_SEARCH_, MYRIAD_CHOOSE(MYRIAD_IS_DECLARED_##stop, CALL, ~))(text, stop)

/* LIKE and GLOB on long texts: some 10 ms a call, and a row may have a hundred. */
#define MYRIAD_LIKE_BYTES_MIN 16384
static void(likeFunc)(sqlite3_context *, int, sqlite3_value **);
static void myriad_like(sqlite3_context *, int, sqlite3_value **);
#define likeFunc(first, second, third)                                                         \
  (likeFunc)(sqlite3_context *context, int count, sqlite3_value **values) {                    \
    if (sqlite3_value_bytes(values[1]) >= MYRIAD_LIKE_BYTES_MIN && myriad_is_interrupted())    \
      sqlite3_result_error_code(context, SQLITE_INTERRUPT);                                    \
    else                                                                                       \
      myriad_like(context, count, values);                                                     \
  }                                                                                            \
  static void myriad_like(first, second, third)

/* length() of a text goes over all of it: half a millisecond for a megabyte. The same count, eight bytes
** at once where all are of one byte each: what is not 0 and below 0x80 is a character; of others, the
** first begins one, and what continues it does not count. */
#define MYRIAD_LENGTH_STRETCH 65536
#define MYRIAD_LOW_BITS 0x0101010101010101ULL
#define MYRIAD_HIGH_BITS 0x8080808080808080ULL
static int myriad_length_of(const unsigned char *text, long bytes, long long *characters) {
  long at = 0;
  int is_open = 0;
  for (*characters = 0; at < bytes;) {
    long end = bytes - at < MYRIAD_LENGTH_STRETCH ? bytes : at + MYRIAD_LENGTH_STRETCH;
    if (myriad_is_interrupted()) return 0;
    while (at < end) {
      unsigned long long word;
      while (end - at >= 8) {
        __builtin_memcpy(&word, text + at, 8);
        if (((word | (word - MYRIAD_LOW_BITS)) & MYRIAD_HIGH_BITS) != 0) break;
        at += 8;
        *characters += 8;
        is_open = 0;
      }
      if (at >= end) break;
      if (text[at] == 0) return 1;
      if (!is_open || (text[at] & 0xc0) != 0x80) ++*characters;
      is_open = text[at++] >= 0x80;
    }
  }
  return 1;
}
static void(lengthFunc)(sqlite3_context *, int, sqlite3_value **);
static void myriad_length(sqlite3_context *, int, sqlite3_value **);
#define lengthFunc(first, second, third)                                                       \
  (lengthFunc)(sqlite3_context *context, int count, sqlite3_value **values) {                  \
    long long characters = 0;                                                                  \
    const unsigned char *text;                                                                 \
    if (sqlite3_value_type(values[0]) != SQLITE_TEXT                                           \
        || sqlite3_value_bytes(values[0]) < MYRIAD_LONG_BYTES_MIN)                             \
      myriad_length(context, count, values);                                                   \
    else if ((text = sqlite3_value_text(values[0])) == 0)                                      \
      sqlite3_result_error_nomem(context);                                                     \
    else if (myriad_length_of(text, sqlite3_value_bytes(values[0]), &characters))              \
      sqlite3_result_int64(context, characters);                                               \
    else                                                                                       \
      sqlite3_result_error_code(context, SQLITE_INTERRUPT);                                    \
  }                                                                                            \
  static void myriad_length(first, second, third)
/* GLOB and LIKE: where a set, or a wildcard for one letter, stands behind a wildcard, each place of the
** text is tried by a call of the comparison by itself, which alone has this word as its last argument. (An
** L before it, as the others' may be a character.) */
static unsigned long myriad_compared(unsigned long other) {
  if ((myriad_passed += 64) >= 131072) {
    myriad_passed = 0;
    myriad_is_interrupted();
  }
  return other;
}
#define LmatchOther ~, CALL
#define MYRIAD_COMPARE_CALL(pattern, text, how, other) \
  (patternCompare)(pattern, text, how, (u32)myriad_compared(other))
#define MYRIAD_COMPARE_OTHER(pattern, text, how, other) (patternCompare)(pattern, text, how, other)
#define patternCompare(pattern, text, how, other) \
  MYRIAD_JOIN(MYRIAD_COMPARE_, MYRIAD_CHOOSE(L##other, OTHER, ~))(pattern, text, how, other)

/* JSON: each path of a function is a way through the text, or back through it. */
#define MYRIAD_IS_STEP_0 ~, CALL
#define MYRIAD_STEP_CALL(parse, root, path, label)                                             \
  (jsonLookupStep)((((parse)->nBlob >= MYRIAD_LONG_BYTES_MIN ? (void)myriad_is_interrupted()   \
                                                            : (void)0), (parse)), root, path, label)
#define MYRIAD_STEP_OTHER(parse, root, path, label) (jsonLookupStep)(parse, root, path, label)
#define jsonLookupStep(parse, root, path, label) \
  MYRIAD_JOIN(MYRIAD_STEP_, MYRIAD_CHOOSE(MYRIAD_IS_STEP_##label, OTHER, ~))(parse, root, path, label)

/* So many bytes were gone over: not 0 where the statement is to end. */
static int myriad_is_over(unsigned long bytes) {
  if ((myriad_passed += 64 + bytes) < 131072) return 0;
  myriad_passed = 0;
  return myriad_is_interrupted();
}

/* A table or index is gone through page by page inside of one step: count(*) counts so, DELETE without WHERE and
** DROP give back so. A million pages are seconds, in which a statement was not ended. Who descends to a page may
** fail, as it does where the page cannot be read. */
#define MYRIAD_PAGE_BYTES 960
#define MYRIAD_IS_DECLARED_BtCursor ~, DECLARATION,
#define MYRIAD_CHILD_DECLARATION(cursor, page) (moveToChild)(cursor, page)
#define MYRIAD_CHILD_CALL(cursor, page) \
  (myriad_is_over(MYRIAD_PAGE_BYTES) ? SQLITE_INTERRUPT : (moveToChild)(cursor, page))
#define moveToChild(cursor, page) \
  MYRIAD_JOIN(MYRIAD_CHILD_, MYRIAD_CHOOSE(MYRIAD_IS_DECLARED_##cursor, CALL, ~))(cursor, page)
#define MYRIAD_CLEAR_DECLARATION(shared, page, flags, changes) \
  (clearDatabasePage)(shared, page, flags, changes)
#define MYRIAD_CLEAR_CALL(shared, page, flags, changes)                                        \
  (myriad_is_over(MYRIAD_PAGE_BYTES) ? SQLITE_INTERRUPT                                        \
                                     : (clearDatabasePage)(shared, page, flags, changes))
#define clearDatabasePage(shared, page, flags, changes) \
  MYRIAD_JOIN(MYRIAD_CLEAR_, MYRIAD_KIND(flags))(shared, page, flags, changes)

/* json_patch(), see above. Only there is a label's first argument a cast. */
#define MYRIAD_LABEL_CAST(...) \
  ({ if (myriad_is_over(szPLabel)) return JSON_MERGE_BADTARGET; (jsonLabelCompare)(__VA_ARGS__); })
#define MYRIAD_LABEL_WORD(...) (jsonLabelCompare)(__VA_ARGS__)
#define MYRIAD_CAST(...) ~, CAST,
#define jsonLabelCompare(label, ...) \
  MYRIAD_JOIN(MYRIAD_LABEL_, MYRIAD_CHOOSE(MYRIAD_CAST label, WORD, ~))(label, __VA_ARGS__)

/* json_tree(): for the path of its first row, each part of the path given is looked up from the root, where a
** part begins at each dot, also at those inside of a name: a name of 900,000 dots took minutes, which nothing
** ended. Paths of people have some ten parts. */
#define MYRIAD_TREE_PRODUCT_MAX 67108864ULL
static int myriad_is_path_long(const char *path, unsigned long long bytes, unsigned long long document) {
  unsigned long long at, parts = 0;
  for (at = 1; at < bytes; at++) parts += path[at] == '.' || path[at] == '[';
  return parts * (bytes + document) > MYRIAD_TREE_PRODUCT_MAX;
}
#define MYRIAD_IS_DECLARED_JsonEachCursor ~, DECLARATION,
#define MYRIAD_TREE_DECLARATION(cursor) (jsonEachPathLength)(cursor)
#define MYRIAD_TREE_CALL(cursor)                                                               \
  ({                                                                                           \
    if ((cursor)->iRowid == 0 && (cursor)->bRecursive                                          \
        && myriad_is_path_long((cursor)->path.zBuf, (cursor)->path.nUsed, (cursor)->sParse.nBlob)) { \
      sqlite3_result_error(ctx, "json_tree: the sizes of path and JSON in bytes, multiplied by " \
                                "the parts of the path, exceed 67108864", -1);                 \
      return SQLITE_OK;                                                                        \
    }                                                                                          \
    (jsonEachPathLength)(cursor);                                                              \
  })
#define jsonEachPathLength(cursor) \
  MYRIAD_JOIN(MYRIAD_TREE_, MYRIAD_CHOOSE(MYRIAD_IS_DECLARED_##cursor, CALL, ~))(cursor)

/* unhex(): each character that is no digit is looked for among all that may be left out. Twice 100 KB took
** 13 s in one step, a megabyte would have taken half an hour. */
#define MYRIAD_LEFT_OUT_DECLARATION(set, bytes, character) (strContainsChar)(set, bytes, character)
#define MYRIAD_LEFT_OUT_CALL(set, bytes, character) \
  (!myriad_is_over(bytes) && (strContainsChar)(set, bytes, character))
#define strContainsChar(set, bytes, character) \
  MYRIAD_JOIN(MYRIAD_LEFT_OUT_, MYRIAD_CHOOSE(MYRIAD_IS_DECLARED_##set, CALL, ~))(set, bytes, character)
static void(unhexFunc)(sqlite3_context *, int, sqlite3_value **);
static void myriad_unhex(sqlite3_context *, int, sqlite3_value **);
#define unhexFunc(first, second, third)                                                        \
  (unhexFunc)(sqlite3_context *context, int count, sqlite3_value **values) {                   \
    myriad_unhex(context, count, values);                                                      \
    if (count == 2) {                                                                          \
      MYRIAD_END_IF_INTERRUPTED(context)                                                       \
    }                                                                                          \
  }                                                                                            \
  static void myriad_unhex(first, second, third)

/* format(), printf() and strftime() with a megabyte of conversions: 20 ms in one step. */
#define MYRIAD_CONVERSIONS_MAX 16384
static int myriad_has_many_conversions(const char *format) {
  unsigned conversions = 0;
  for (; format != 0 && (format = __builtin_strchr(format, '%')) != 0; format++) conversions++;
  return conversions > MYRIAD_CONVERSIONS_MAX;
}
#define MYRIAD_FORMAT(name, first, second, third)                                              \
  (name)(sqlite3_context *context, int count, sqlite3_value **values) {                        \
    if (count > 0 && myriad_has_many_conversions((const char *)sqlite3_value_text(values[0]))) \
      sqlite3_result_error(context, "the format has more than 16384 conversions", -1);         \
    else                                                                                       \
      myriad_##name(context, count, values);                                                   \
  }                                                                                            \
  static void myriad_##name(first, second, third)
static void(printfFunc)(sqlite3_context *, int, sqlite3_value **);
static void(strftimeFunc)(sqlite3_context *, int, sqlite3_value **);
static void myriad_printfFunc(sqlite3_context *, int, sqlite3_value **);
static void myriad_strftimeFunc(sqlite3_context *, int, sqlite3_value **);
#define printfFunc(first, second, third) MYRIAD_FORMAT(printfFunc, first, second, third)
#define strftimeFunc(first, second, third) MYRIAD_FORMAT(strftimeFunc, first, second, third)

/* Functions of ours in the place of SQLite's, whose own code answers where ours does not: see functions.rs,
** whose table has the same order. Set at the start. */
int (*myriad_function)(int, sqlite3_context *, int, sqlite3_value **) = 0;
enum MYRIAD_FUNCTIONS {
  MYRIAD_randomFunc, MYRIAD_randomBlob, MYRIAD_instrFunc, MYRIAD_replaceFunc,
  MYRIAD_trimFunc, MYRIAD_hexFunc, MYRIAD_upperFunc, MYRIAD_lowerFunc
};
#define MYRIAD_OWN(name, first, second, third)                                                 \
  (name)(sqlite3_context *context, int count, sqlite3_value **values) {                        \
    if (myriad_function == 0 || !myriad_function(MYRIAD_##name, context, count, values))       \
      myriad_##name(context, count, values);                                                   \
  }                                                                                            \
  static void myriad_##name(first, second, third)
static void(randomFunc)(sqlite3_context *, int, sqlite3_value **);
static void(randomBlob)(sqlite3_context *, int, sqlite3_value **);
static void(instrFunc)(sqlite3_context *, int, sqlite3_value **);
static void(replaceFunc)(sqlite3_context *, int, sqlite3_value **);
static void(trimFunc)(sqlite3_context *, int, sqlite3_value **);
static void(hexFunc)(sqlite3_context *, int, sqlite3_value **);
static void(upperFunc)(sqlite3_context *, int, sqlite3_value **);
static void(lowerFunc)(sqlite3_context *, int, sqlite3_value **);
static void myriad_randomFunc(sqlite3_context *, int, sqlite3_value **);
static void myriad_randomBlob(sqlite3_context *, int, sqlite3_value **);
static void myriad_instrFunc(sqlite3_context *, int, sqlite3_value **);
static void myriad_replaceFunc(sqlite3_context *, int, sqlite3_value **);
static void myriad_trimFunc(sqlite3_context *, int, sqlite3_value **);
static void myriad_hexFunc(sqlite3_context *, int, sqlite3_value **);
static void myriad_upperFunc(sqlite3_context *, int, sqlite3_value **);
static void myriad_lowerFunc(sqlite3_context *, int, sqlite3_value **);
#define randomFunc(first, second, third) MYRIAD_OWN(randomFunc, first, second, third)
#define randomBlob(first, second, third) MYRIAD_OWN(randomBlob, first, second, third)
#define instrFunc(first, second, third) MYRIAD_OWN(instrFunc, first, second, third)
#define replaceFunc(first, second, third) MYRIAD_OWN(replaceFunc, first, second, third)
#define trimFunc(first, second, third) MYRIAD_OWN(trimFunc, first, second, third)
#define hexFunc(first, second, third) MYRIAD_OWN(hexFunc, first, second, third)
#define upperFunc(first, second, third) MYRIAD_OWN(upperFunc, first, second, third)
#define lowerFunc(first, second, third) MYRIAD_OWN(lowerFunc, first, second, third)

#include "myriad_hooks_fts5.h"

/* The next look is as far away as at the start of the process. */
void myriad_reset(void) {
  myriad_passed = 0;
  myriad_instances = 0;
  myriad_tokens = 0;
}
