/* Included by SQLite's own source (SQLITE_CUSTOM_INCLUDE, see .cargo/config.toml): gives up the turn
** in loops of SQLite that could run for seconds in one step of its virtual machine, and refuses what
** cannot be left. No text of SQLite changes: each macro stands for a name that is called only in the
** loops meant here, or that is defined once and elsewhere only used as a pointer. A change here needs
** a new number of MYRIAD_HOOKS, or SQLite is not compiled again. */
#if MYRIAD_HOOKS != 1
#error "MYRIAD_HOOKS in .cargo/config.toml and this file are of different versions"
#endif

typedef struct sqlite3_context sqlite3_context;
typedef struct sqlite3_value sqlite3_value;

/* Gives up the turn if it has ended; not 0: the statement is interrupted. Set at the start. */
int (*myriad_stretch)(void) = 0;

static int myriad_is_interrupted(void) { return myriad_stretch != 0 && myriad_stretch(); }

/* FTS5: snippet() looks at each instance of a phrase once for each of them, highlight() copies its
** output at each. No instance has the number -1: the function ends with an error. */
static __thread unsigned myriad_instances = 0;
#define xInst(fts, instance, phrase, column, offset)                              \
  xInst((fts), ((++myriad_instances & 255) == 0 && myriad_is_interrupted()) ? -1 : (instance), \
        (phrase), (column), (offset))

/* json_patch(): each member of the patch is looked for among all members of the target, so the product
** of their sizes bounds the time: some 10 ms. */
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
    else                                                                                       \
      myriad_patch(context, count, values);                                                    \
  }                                                                                            \
  static void myriad_patch(first, second, third)

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
