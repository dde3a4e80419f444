/* Criterion's newer assertions; the tests include the header and use none of them. */
